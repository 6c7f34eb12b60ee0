"""Low-rank adapters: what peft adds to a model that is frozen otherwise."""

import warnings
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tulu.config.schema import Lora
from tulu.errors import RecipeError
from tulu.model.gathering import gathered, is_spread, whole_values
from tulu.model.private_state import is_sharded, whole_shape

HEADS = ("lm_head", "score")
"""Heads, which are read where a token is trained and not through their own forward pass; a reward model trains its whole."""


def add_adapters(model: PreTrainedModel, lora: Lora) -> nn.Module:
    """The model with trainable low-rank adapters and everything else frozen.

    Raises RecipeError if a named module is not there or takes no adapter.
    """
    from peft import LoraConfig, get_peft_model

    everything = isinstance(lora.targets, str)
    targets: Any = lora.targets if everything else list(lora.targets)
    if not everything:
        _check_targets(model, targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=[*HEADS, *(_untrainable(model) if everything else ())],
    )
    # Every process and every session must begin with the same adapters. What peft warns of is checked before training.
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        try:
            adapted: nn.Module = get_peft_model(model, config)
        except (ValueError, NotImplementedError) as error:
            raise RecipeError(f"lora: {type(model).__name__} takes no such adapters ({_cure(str(error), lora)})") from error
    _refuse_sharded_experts(model)
    return adapted


def _refuse_sharded_experts(model: PreTrainedModel) -> None:
    """Raise RecipeError where experts that have adapters are sharded."""
    if is_spread(model):
        refuse_expert_adapters(model, "zero3" if any(map(is_sharded, model.parameters())) else "fsdp2")


def refuse_expert_adapters(model: nn.Module, sharding: str) -> None:
    """Raise RecipeError where experts have adapters, whose product peft would add to a shard of their weights."""
    from peft.tuners.lora.layer import ParamWrapper

    for name, module in model.named_modules():
        if isinstance(module, ParamWrapper):
            raise RecipeError(
                f"lora: adapters of experts and their router ({name}) cannot be trained with sharding: {sharding}\n"
                "Set sharding: zero2, or name the other modules in lora.targets."
            )


def _check_targets(model: PreTrainedModel, targets: list[str]) -> None:
    """Raise RecipeError if a target names no module, or a head."""
    names = [name for name, _ in model.named_modules()]
    absent = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if absent:
        known = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)})
        raise RecipeError(
            f"lora.targets: {type(model).__name__} has no {', '.join(absent)}\nIts linear layers: {', '.join(known)}"
        )
    dead = [name for name in _untrainable(model) if any(f".{name}".endswith(f".{target}") for target in targets)]
    if dead:
        raise RecipeError(
            f"lora.targets: {dead[0]} of {type(model).__name__} takes no adapter, which would not act there; leave it out"
        )
    if heads := sorted({target for target in targets if target.rpartition(".")[2] in HEADS}):
        raise RecipeError(f"lora.targets: {', '.join(heads)} takes no adapter; leave it out, or train without lora")


def _cure(reason: str, lora: Lora) -> str:
    if lora.dropout and "lora_dropout" in reason:
        return "the adapters of its experts take no dropout\nSet lora.dropout to 0, or name other modules in lora.targets"
    return reason


def _untrainable(model: PreTrainedModel) -> list[str]:
    """The linear layers on which an adapter has no effect or a wrong one.

    Some routers are called linear and return more than a product. Of Mamba's mixers, a kernel on a GPU reads the weights of
    all linear layers but the first, and their adapters do nothing.
    """
    found = []
    for name, module in model.named_modules():
        if (isinstance(module, nn.Linear) and not _is_product(module)) or (
            isinstance(module, nn.Embedding) and not _is_lookup(module)
        ):
            found.append(name)
        elif {"A_log", "D"} <= {own for own, _ in module.named_parameters(recurse=False)}:
            inner = [child for child, layer in module.named_children() if isinstance(layer, nn.Linear) and child != "in_proj"]
            found += [f"{name}.{child}" for child in inner]
    return found


def _is_lookup(layer: nn.Embedding) -> bool:
    """Whether an embedding returns the rows that its input counts, scaled at most; OPT's positions are counted from a mask."""
    if type(layer).forward is nn.Embedding.forward:
        return True
    probe_T = torch.arange(min(4, whole_shape(layer.weight)[0]), device=layer.weight.device)[None]
    try:
        with gathered(layer), torch.no_grad():
            found = layer(probe_T)
    except (TypeError, RuntimeError, IndexError):
        return False
    # peft scales what an adapter adds by the same attribute.
    expected = nn.functional.embedding(probe_T, whole_values(layer.weight)) * getattr(layer, "embed_scale", 1.0)
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-2, atol=1e-2)


def _is_product(layer: nn.Linear) -> bool:
    """Whether a linear layer returns what its name says; only one with a forward pass of its own is tried out."""
    if type(layer).forward is nn.Linear.forward:
        return True
    inputs, device = whole_shape(layer.weight)[1], layer.weight.device
    probe = torch.linspace(-1, 1, inputs, dtype=layer.weight.dtype, device=device)[None]
    with gathered(layer), torch.no_grad():
        found = layer(probe)
    bias = None if layer.bias is None else whole_values(layer.bias)
    expected = nn.functional.linear(probe, whole_values(layer.weight), bias)
    return (
        isinstance(found, torch.Tensor)
        and found.shape == expected.shape
        and torch.allclose(found, expected, rtol=1e-2, atol=1e-2)
    )
