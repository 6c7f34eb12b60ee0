"""The weights of a model as its published checkpoint has them: which there are, under which names, with adapters merged.

What is saved, hashed and sent to an engine is this one set: every entry of the model's state dict, so parameters and the
buffers that belong to the checkpoint, such as the bias by which DeepSeek-V3 balances its experts.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tulu.model.gathering import adapter_delta, whole_values
from tulu.model.private_state import to_published_weights, whole_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Entry:
    """One weight of a transformers model."""

    name: str
    """Its name in the model without adapters."""
    tensor: Tensor
    """The parameter or buffer itself; a shard of it under ZeRO-3."""
    adapters: tuple[Any, ...]
    """The layers of peft that add a product to it."""

    @property
    def identity(self) -> tuple[int, ...]:
        """Alike for two entries that always have the same values."""
        return (id(self.tensor), *map(id, self.adapters))


def unwrap(model: nn.Module) -> "PreTrainedModel":
    """The transformers model inside its adapters; a model without adapters is returned as it is."""
    outer: Any = model
    inner: PreTrainedModel = outer.get_base_model() if hasattr(outer, "peft_config") else outer
    return inner


def published_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight as published; every process must iterate, and gets the same.

    One weight at a time is gathered and merged, so that a model fits that is sharded because it is too large; the few of a layer
    that are published as one tensor come together. Buffers come as `torch.nn.Buffer`, which tells them from weights that train.
    """
    inner = unwrap(model)
    for entries in _published_together(model):
        yield from to_published_weights(inner, {entry.name: merged(entry) for entry in entries}).items()


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight under the model's own name, adapters merged; every process must iterate."""
    for entry in entries_of(model):
        yield entry.name, merged(entry)


def published_shapes(model: nn.Module) -> dict[str, Tensor]:
    """What `published_weights` yields, as tensors that have a shape and a dtype and no values; nothing is gathered."""
    inner = unwrap(model)
    shapes: dict[str, Tensor] = {}
    for entries in _published_together(model):
        shapes |= to_published_weights(inner, _empty(entries))
    return shapes


def _published_together(model: nn.Module) -> Iterator[list[Entry]]:
    """All entries, in the smallest groups that are published as they would be all together."""
    inner = unwrap(model)
    for _, grouped in groupby(entries_of(model), key=lambda entry: layer_of(entry.name)):
        entries = list(grouped)
        if _are_independent(inner, entries):
            yield from ([entry] for entry in entries)
        else:
            yield entries


def _are_independent(inner: "PreTrainedModel", entries: Sequence[Entry]) -> bool:
    """Whether the entries of a layer are published one by one as they are together: none becomes a part of a larger tensor."""
    together = to_published_weights(inner, _empty(entries))
    try:
        alone = [found for entry in entries for found in to_published_weights(inner, _empty([entry])).items()]
    except (ValueError, RuntimeError, KeyError, IndexError, TypeError):
        # What puts several tensors together says in its own way that it lacks the others.
        return False
    shapes = {name: tensor.shape for name, tensor in alone}
    return len(alone) == len(shapes) and shapes == {name: tensor.shape for name, tensor in together.items()}


def _empty(entries: Iterable[Entry]) -> dict[str, Tensor]:
    """Entries as tensors that have a shape and a dtype and no values."""
    return {e.name: torch.empty(whole_shape(e.tensor), dtype=e.tensor.dtype, device="meta") for e in entries}


def entries_of(model: nn.Module) -> list[Entry]:
    """Every weight of the transformers model once, in its own order; a tied one under the name that it is tied to.

    A tied weight is two where an adapter changes only one of its uses, such as the embedding and not the output head.
    """
    inner = unwrap(model)
    # Where two names share a weight, the other one is dropped by transformers too when it saves.
    tied = set(getattr(inner, "all_tied_weights_keys", {}))
    found = list(_all_entries(inner, _adapters(inner) if inner is not model else {}))
    kept: dict[tuple[int, ...], str] = {}
    for entry in sorted(found, key=lambda entry: entry.name in tied):
        kept.setdefault(entry.identity, entry.name)
    return [entry for entry in found if kept[entry.identity] == entry.name]


def _adapters(inner: "PreTrainedModel") -> dict[str, Any]:
    """The layers of peft in a model, by every name that they have in it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in inner.named_modules(remove_duplicate=False) if isinstance(module, BaseTunerLayer)}


def _all_entries(inner: "PreTrainedModel", layers: dict[str, Any]) -> Iterator[Entry]:
    """Every entry of the state dict that is not an adapter's own; tied weights come under each of their names."""
    modules = dict(inner.named_modules(remove_duplicate=False))
    adapters: dict[tuple[int, str], list[Any]] = {}
    for layer in {id(layer): layer for layer in layers.values()}.values():
        # Most layers of peft wrap a module with a weight; those of experts wrap one parameter of a module.
        wrapped = id(layer.get_base_layer()), getattr(layer, "parameter_name", "weight")
        adapters.setdefault(wrapped, []).append(layer)
    for key, tensor in inner.state_dict(keep_vars=True).items():
        name = _without_adapters(key, layers)
        owner, _, leaf = key.rpartition(".")
        if name is not None:
            yield Entry(name, tensor, tuple(adapters.get((id(modules[owner]), leaf), ())))


def _without_adapters(key: str, layers: Container[str]) -> str | None:
    """The name that an entry of the state dict has in the model without adapters; None if it is an adapter's own."""
    parts = key.split(".")
    kept: list[str] = []
    for index, part in enumerate(parts):
        if ".".join(parts[:index]) not in layers:
            kept.append(part)
        elif part != "base_layer":
            return None
    return ".".join(kept)


def layer_of(name: str) -> str:
    """The layer that a weight belongs to, such as `model.layers.7` for `model.layers.7.mlp.up_proj.weight`."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else ""


@torch.no_grad()
def merged(entry: Entry) -> Tensor:
    """All values of a weight with what its adapters add; a copy where ZeRO-3 shards it."""
    tensor = whole_values(entry.tensor)
    for layer in entry.adapters:
        tensor = tensor + sum(adapter_delta(layer, adapter).to(tensor.dtype) for adapter in layer.active_adapters)
    return tensor if isinstance(entry.tensor, nn.Parameter) else nn.Buffer(tensor)


def is_buffer(tensor: Tensor) -> bool:
    """Whether a weight is one that never trains, and so keeps the dtype of its checkpoint wherever it goes."""
    return isinstance(tensor, nn.Buffer)


def tied_names(model: "PreTrainedModel") -> dict[str, str]:
    """By the configuration, the names of weights that are the same as another one, each with the name of the other."""
    return dict(model.get_expanded_tied_weights_keys(all_submodels=True))


def saved_config(model: "PreTrainedModel", names: Iterable[str]) -> Any:
    """The configuration to save with weights of these names: it ties nothing of which there are two."""
    config = type(model.config).from_dict(model.config.to_dict())
    if set(tied_names(model)) & set(names):
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = False
    config.architectures = [type(model).__name__]
    return config
