"""Low-rank adapters by themselves, as an engine takes them that adds them to the starting model while it computes.

The names, shapes and settings are those of an adapter that peft saves.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from tulu.errors import RecipeError
from tulu.model.gathering import whole_values
from tulu.model.private_state import whole_shape
from tulu.model.published import published_shapes, unwrap

NAME = "default"
"""Under which peft keeps the adapter that we train."""
CURE = "set rlvr.resources.adapters to merged"


@dataclass(frozen=True)
class AdapterForm:
    """What an engine must know of adapters before any values come."""

    rank: int
    shapes: Mapping[str, tuple[int, ...]]
    """The shape of each tensor by its name."""
    config: str
    """The text of adapter_config.json."""


def adapter_form(model: Any) -> AdapterForm:
    """The form of a model's adapters. Raises RecipeError where it has none, or some that an engine would misread."""
    configs = getattr(model, "peft_config", {})
    if list(configs) != [NAME]:
        raise RecipeError(f"rlvr.resources.adapters: apart, and the model has no adapters; set rlvr.lora, or {CURE}")
    published = published_shapes(model)
    for name, _ in _parameters(model):
        module, _, factor = name.removeprefix("base_model.model.").partition(".lora_")
        if f"{module}.weight" not in published or factor not in ("A.weight", "B.weight"):
            raise RecipeError(
                f"rlvr.resources.adapters: {module} of {type(unwrap(model)).__name__} is no linear layer that is published under "
                f"its own name, so an engine cannot tell what its adapter belongs to; {CURE}"
            )
    config = configs[NAME].to_dict()
    # Sets and enumerations are what JSON has no word for; peft reads lists and texts.
    text = json.dumps({**config, "inference_mode": True}, default=_plain)
    shapes = {name: tuple(whole_shape(parameter)) for name, parameter in _parameters(model)}
    return AdapterForm(config["r"], shapes, text)


@torch.no_grad()
def adapter_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every adapter; every process must iterate, and gets the same."""
    for name, parameter in _parameters(model):
        yield name, whole_values(parameter)


def save_adapters(model: Any, folder: Path, write: bool) -> None:
    """Write a model's adapters as peft saves them, beside the merged weights; nothing where it has none. All ranks call it.

    Raises OSError where the disk refuses.
    """
    config = getattr(model, "peft_config", {}).get(NAME)
    if config is None:
        return
    # Adapters are small beside the weights, so that they are in memory together.
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_weights(model)}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**config.to_dict(), "inference_mode": True}, default=_plain, indent=2)
        (folder / "adapter_config.json").write_text(text + "\n")
        # safetensors' own writer of files gives them to their owner alone, whatever the umask says.
        (folder / "adapter_model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in model.named_parameters():
        if f".{NAME}." in name:
            yield name.replace(f".{NAME}.", "."), parameter


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(getattr(value, "value", value))
