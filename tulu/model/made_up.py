"""Making the tiny random model of `--tiny`, and its tokenizer of bytes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tulu.config.made_up import Architecture, tiny_config
from tulu.config.templates import TEMPLATES
from tulu.data.chat import make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.model.quiet import quiet

TURN_TOKENS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""Tokens that chat templates write around turns."""
_SEED = 1
_SPREAD = 0.1
"""Standard deviation of the random weights: larger than usual, so that log-probs vary."""
_SHARE_OF_ANSWERS, _SHARE_OF_ENDS = 0.5, 0.12
"""About how much of the next token's probability falls on whole answers, and on the end of a turn."""


def make_tokenizer(answers: Sequence[str], template: str, name: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, and of one token for each whole answer.

    `template` is the name or the text of its own chat template, which gets a name where `name` says one.
    """
    from tokenizers import AddedToken

    tokenizer = make_byte_tokenizer()
    tokenizer.add_tokens([AddedToken(text, special=True) for text in TURN_TOKENS], special_tokens=True)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in answers])
    text = TEMPLATES.get(template, template)
    tokenizer.chat_template = {"default": text, name: text} if name else text
    return tokenizer


def make_model(architecture: Architecture, tokenizer: PreTrainedTokenizerFast, answers: Sequence[str], folder: Path) -> int:
    """Write a tiny random model of an architecture with its tokenizer; returns its number of parameters.

    Raises RecipeError where transformers has no such architecture, or its small configuration is none.
    """
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        model = _random(architecture.config, tokenizer)
        favoured = dict.fromkeys(tokenizer.convert_tokens_to_ids(list(answers)), _SHARE_OF_ANSWERS / max(1, len(answers)))
        ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
        lean(model, {**favoured, **dict.fromkeys(ends, _SHARE_OF_ENDS / len(ends))}, tokenizer.encode("What is 3 + 4?\n"))
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _random(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    kind = config["model_type"]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    # What a configuration says of files, code and arithmetic belongs to the checkpoint that it came with.
    foreign = ("model_type", "architectures", "auto_map", "quantization_config", "transformers_version", "dtype", "torch_dtype")
    try:
        with quiet():
            given = {key: value for key, value in config.items() if key not in foreign}
            whole = AutoConfig.for_model(kind, **given).to_dict()
            sizes = {**tiny_config(whole), "vocab_size": len(tokenizer), **ids}
            small = AutoConfig.for_model(kind, **{key: value for key, value in sizes.items() if key not in foreign})
            model = AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    # A configuration that somebody else wrote may be refused in any way.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"--tiny: transformers makes no small model of the architecture {kind!r}: {type(error).__name__}: {reason}\n"
            "Name a model of another architecture (model=FOLDER), or try the recipe on the model itself."
        ) from error
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=_SPREAD)
    return model


@torch.no_grad()
def lean(model: Any, shares: Mapping[int, float], tokens: Sequence[int]) -> None:
    """Give tokens about these shares of the next token's probability, wherever in a text.

    All embeddings get a vector in common, so that hidden states have a part in common, and the head's rows of these tokens
    point along it.
    """
    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    embeddings += torch.randn(embeddings.shape[1])
    hidden_TH = model.base_model(torch.tensor([list(tokens)]), use_cache=False).last_hidden_state[0]
    common_H = hidden_TH.mean(dim=0)
    other = 1.0 - sum(shares.values())
    each = other / (len(head) - len(shares))
    for token, share in shares.items():
        head[token] += math.log(share / each) * common_H / common_H.dot(common_H)
