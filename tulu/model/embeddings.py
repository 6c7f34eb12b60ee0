"""A model's embeddings and its tokenizer: every token needs a row, and rows that are missing can be added."""

import logging
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from tulu.config.schema import Lora
from tulu.errors import RecipeError
from tulu.model.spreading import opened

log = logging.getLogger("tulu")


def rows_needed(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the largest id of a tokenizer, whose ids may have gaps."""
    return 1 + max(tokenizer.get_vocab().values(), default=-1)


def check_vocabulary(name: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, resize: bool) -> None:
    """`check_rows` by what a configuration says, before the model is loaded; nothing where it does not say."""
    rows = config.get_text_config().to_dict().get("vocab_size")
    if rows is not None:
        check_rows(name, tokenizer, int(rows), resize)


def check_rows(name: str, tokenizer: PreTrainedTokenizerBase, rows: int, resize: bool) -> None:
    """Raise RecipeError where a model with that many rows of embeddings lacks one for a token, and none are to be added."""
    if resize or (needed := rows_needed(tokenizer)) <= rows:
        return
    # A pad token is never embedded here: rows are packed, or padded with a token that is masked.
    lacking = sorted((index, token) for token, index in tokenizer.get_vocab().items() if index >= rows)
    if [index for index, _ in lacking] == [tokenizer.pad_token_id]:
        return
    tokens = ", ".join(token for _, token in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
    raise RecipeError(
        f"{name}: the tokenizer has {needed} tokens and the model embeddings for {rows}; it lacks those of {tokens}\n"
        "Set resize_embeddings: true in a recipe that trains it, or name the model with the tokenizer that it was trained with."
    )


def fit_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, resize: bool, lora: Lora | None) -> None:
    """Add a row of embeddings, and of the output head, for each token that lacks one, where `resize` says so.

    New rows begin at the mean of the others, with next to no noise. Raises RecipeError where rows are lacking and not to be
    added, or where they would stay as they are because adapters alone are trained.
    """
    embeddings: Any = model.get_input_embeddings()
    rows, needed = int(embeddings.num_embeddings), rows_needed(tokenizer)
    check_rows(tokenizer.name_or_path, tokenizer, rows, resize)
    if needed <= rows or not resize:
        return
    if lora is not None:
        raise RecipeError(
            f"resize_embeddings: {needed - rows} rows of embeddings are new, and adapters would not train them\n"
            "Remove lora from this stage; a later stage starts from a model that has them, and may train adapters."
        )
    # Every process, and the frozen reference beside the policy, must draw the same noise.
    with torch.random.fork_rng(), opened(model):
        torch.manual_seed(0)
        model.resize_token_embeddings(needed)
    model.tulu_resized = True  # type: ignore[assignment]
    log.info("resize_embeddings: %d rows were added to the %d of %s", needed - rows, rows, tokenizer.name_or_path)
