"""Making the tiny random model of `--tiny`, and its tokenizer of bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

from tulu.config.made_up import Architecture, tiny_config
from tulu.data.chat import make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.model.generation import as_list
from tulu.model.policy import Policy
from tulu.model.quiet import quiet
from tulu.verifiers.contract import shorten

TURN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""Tokens that chat templates write around turns."""
_SPREAD = 0.1
"""Standard deviation of the random weights: larger than usual, so that log-probs vary."""
_SHARE_OF_ANSWERS, _SHARE_OF_ENDS = 0.5, 0.12
"""About how much of the next token's probability falls on whole answers, and on the end of a turn."""
_ROUNDS = 8
_LARGEST = 10_000_000
"""Parameters over which a model is not tiny."""


def make_tokenizer(answers: Sequence[str], template: str, name: str = "", bytes_alone: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, and of one token for each whole answer; with `bytes_alone` that of a base stage.

    `template` is the text of its own chat template, which has a name where `name` says one.
    """
    from tokenizers import AddedToken

    tokenizer = make_byte_tokenizer()
    if not bytes_alone:
        tokenizer.add_tokens([AddedToken(text, special=True) for text in TURN_TOKENS], special_tokens=True)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in answers])
    tokenizer.chat_template = {"default": template, name: template} if name else template
    return tokenizer


def make_model(
    architecture: Architecture, tokenizer: PreTrainedTokenizerFast, answers: Sequence[str], folder: Path, seed: int = 1
) -> int:
    """Write a tiny random model of an architecture with its tokenizer; returns its number of parameters.

    Raises RecipeError where transformers has no such architecture, or its small configuration is none.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _random(architecture.config, tokenizer)
        right = as_list(tokenizer.convert_tokens_to_ids(list(answers)))
        known = tokenizer.get_vocab()
        ends = [tokenizer.eos_token_id, *(known[end] for end in ("<|im_end|>",) if end in known)]
        parts = ((right, _SHARE_OF_ANSWERS), (ends, _SHARE_OF_ENDS))
        shares = {token: share / len(tokens) for tokens, share in parts for token in tokens}
        lean(model, shares, tokenizer.encode("What is 3 + 4?\n"))
    Policy(model, tokenizer).save(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _random(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    kind = config["model_type"]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # What a configuration says of files, code and arithmetic belongs to the checkpoint that it came with.
    foreign = ("model_type", "architectures", "auto_map", "quantization_config", "transformers_version", "dtype", "torch_dtype")
    try:
        with quiet():
            given = {key: value for key, value in config.items() if key not in foreign}
            whole = AutoConfig.for_model(kind, **given)
            sizes = {**_small_fields(whole), "vocab_size": len(tokenizer), **ids}
            small = AutoConfig.for_model(kind, **{key: value for key, value in sizes.items() if key not in foreign})
            with torch.device("meta"):
                size = AutoModelForCausalLM.from_config(small).num_parameters()
            if size > _LARGEST:
                raise ValueError(f"it would have {size:,} parameters")
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    # A configuration that somebody else wrote may be refused in any way.
    except Exception as error:
        reason = shorten(str(error).strip().partition("\n")[0], 200)
        raise RecipeError(
            f"--tiny: transformers makes no small model of the architecture {kind!r}: {type(error).__name__}: {reason}\n"
            "Name a model of another architecture (model=FOLDER), or try the recipe on the model itself."
        ) from error
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=_SPREAD)
    return model


def _small_fields(whole: PreTrainedConfig) -> dict[str, Any]:
    """The fields of a configuration with small sizes, under the architecture's own names (GPT-2 calls hidden_size n_embd)."""
    common = {own: name for name, own in whole.attribute_map.items()}
    small = tiny_config({common.get(key, key): value for key, value in whole.to_dict().items()})
    return {whole.attribute_map.get(key, key): value for key, value in small.items()}


@torch.no_grad()
def lean(model: Any, shares: Mapping[int, float], tokens: Sequence[int]) -> None:
    """Give tokens about these shares of the next token's probability, wherever in a text.

    All embeddings get a vector in common, so that hidden states have a part in common, and the head's rows of these tokens
    point along it.
    """
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings += torch.randn(embeddings.shape[1])
    tokens_T, favoured = torch.tensor([list(tokens)]), list(shares)
    wanted = torch.tensor([shares[token] for token in favoured]).log()
    for _ in range(_ROUNDS):
        # Heads differ in what they make of a hidden state (a cap, a factor), so the shares are measured and corrected.
        common_H = model.base_model(tokens_T, use_cache=False).last_hidden_state[0].mean(dim=0)
        logps_TV = model(tokens_T, use_cache=False).logits[0].log_softmax(dim=-1)
        missing = wanted - logps_TV[:, favoured].mean(dim=0)
        head[favoured] += missing[:, None] * common_H / common_H.dot(common_H)
