"""What is loaded is what the checkpoint holds, and what would be saved is that again: checked before anything is trained.

A model that is loaded wrongly trains from random weights, and one that is saved wrongly is random again when it is loaded.
Neither raises anything, so both are looked for here, on the real model, at the start of a run.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tulu.errors import RecipeError, first_few
from tulu.model.gathering import unsharded
from tulu.model.private_state import ignored_at_loading
from tulu.model.published import published_shapes, published_weights, saved_config, tied_names, unwrap
from tulu.model.quiet import quiet
from tulu.model.stored import Stored, open_checkpoint

log = logging.getLogger("tulu")


SCORE = "score.weight"
"""The head of a reward model, which a language model has not."""
OUTPUT_HEADS = frozenset(("lm_head.weight", "lm_head.bias", "embed_out.weight", "embed_out.bias"))
"""The heads of language models, for which a reward model has no use."""
PROBED_ROWS = 3
"""How many rows of each matrix are compared with the checkpoint: the first, one in the middle, the last."""


def check_loaded(path: str | Path, model: PreTrainedModel, loading: Mapping[str, Any]) -> None:
    """Raise RecipeError if the checkpoint lacks weights of the model, holds others, or has them in another shape.

    `loading` is what transformers reports. The head of a classifier may be missing: whoever loads one sees to it.
    """
    missing, unexpected = set(loading["missing_keys"]), set(loading["unexpected_keys"])
    if not model.can_generate():
        missing = {name for name in missing if name.startswith(f"{model.base_model_prefix}.")}
        unexpected -= OUTPUT_HEADS
    other = [str(key[0] if isinstance(key, tuple) else key) for key in loading.get("mismatched_keys", ())]
    faults = [
        _listed(missing, "{} weights of the model are missing: {}"),
        _listed(unexpected, "{} weights are not the model's: {}"),
        _listed(other, "{} weights have another shape: {}"),
        *map(str, loading.get("error_msgs", ())),
    ]
    if faults := [fault for fault in faults if fault]:
        reason = f"the checkpoint is not one of {type(model).__name__}, so the model would begin with random weights"
        cure = "Take the folder as it was published, or rename its weights to the names that transformers gives them."
        raise RecipeError("\n".join([f"{path}: {reason}", *(f"  {fault}" for fault in faults), cure]))


def _listed(names: Collection[str], text: str) -> str:
    """How many names there are, and the first few; empty where there are none."""
    return text.format(len(names), first_few(sorted(names))) if names else ""


def check_saving(model: nn.Module, path: str | Path, revision: str | None = None, fresh: Collection[str] = ()) -> None:
    """Raise RecipeError unless the model, saved as it is now, holds what the checkpoint at `path` holds.

    Adapters are still zero then. `fresh` are the names of weights that were made anew. The dtypes in which the checkpoint
    stores its weights are kept for saving.
    """
    inner: Any = unwrap(model)
    saved = published_shapes(model)
    check_reload(model, saved)
    with open_checkpoint(path, revision) as stored:
        pairs = _pair(inner, saved, stored)
        faults = _name_faults(inner, saved, stored, pairs, fresh)
        faults += _value_faults(published_weights(model), stored, {n: s for n, s in pairs.items() if n not in fresh})
        inner.tulu_stored_dtypes = {name: stored[source].dtype for name, source in pairs.items()}
    if faults:
        _refuse(inner, path, faults)


def check_reload(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Raise RecipeError unless transformers loads weights of these names and shapes into every weight of the same model."""
    inner = unwrap(model)
    config = saved_config(inner, saved)
    # Tensors on the device "meta" have shapes and no values, so this costs neither memory nor time, however large the model.
    options: dict[str, Any] = {"device_map": "meta", "output_loading_info": True, "ignore_mismatched_sizes": True}
    with unsharded(), quiet():
        model_class: Any = type(inner)
        again, loading = model_class.from_pretrained(None, config=config, state_dict=dict(saved), **options)
    faults = [
        _listed(loading["missing_keys"], "{} weights would be missing: {}"),
        _listed(loading["unexpected_keys"], "{} weights would be left out: {}"),
        _listed([str(key) for key in loading["mismatched_keys"]], "{} weights would have another shape: {}"),
        _listed(set(tied_names(again)) & set(saved), "{} weights of their own would be taken for others: {}"),
    ]
    if faults := [fault for fault in faults if fault]:
        _refuse(inner, "the saved model", faults)


def _refuse(model: PreTrainedModel, what: str | Path, faults: Iterable[str]) -> None:
    reason = f"what is trained of a {type(model).__name__} could not be saved as it is"
    cure = "Please report the architecture. With adapters, others may do: name the modules in lora.targets."
    raise RecipeError("\n".join([f"{what}: {reason}", *(f"  {fault}" for fault in faults), cure]))


def _pair(model: PreTrainedModel, saved: Collection[str], stored: Collection[str]) -> dict[str, str]:
    """The name in the checkpoint of each weight that would be saved and is stored under its own name.

    Some checkpoints, such as those of GPT-2, are of the model without its head, and their names lack a prefix.
    """
    prefix = f"{model.base_model_prefix}."
    tied = tied_names(model)
    # A tied weight is stored under either name, and is two where an adapter changes one of its uses.
    aliases = {**{source: target for target, source in tied.items()}, **tied}
    pairs = {}
    for name in saved:
        for candidate in (name, name.removeprefix(prefix), prefix + name, aliases.get(name, name)):
            if candidate in stored:
                pairs[name] = candidate
                break
    return pairs


def _name_faults(
    model: PreTrainedModel,
    saved: Mapping[str, Tensor],
    stored: Mapping[str, Stored],
    pairs: Mapping[str, str],
    fresh: Collection[str],
) -> list[str]:
    """What would be saved and is not in the checkpoint, or the reverse, or has another shape."""
    ignored = ignored_at_loading(model)
    known = {*pairs.values(), *tied_names(model), *(() if model.can_generate() else OUTPUT_HEADS)}
    dropped = {name for name in stored if name not in known}
    harmless = {name for name in dropped if ignored and re.search(ignored, name)}
    if harmless:
        log.warning(_listed(harmless, "{} weights of the checkpoint are no part of " + type(model).__name__ + ": {}"))
    added = set(saved) - set(pairs) - set(fresh)
    faults = []
    # Where both sides have names of their own, transformers renamed old ones; that it found all of them is checked already.
    if bool(added) != bool(dropped - harmless):
        faults = [_listed(added, "{} weights are not in it: {}"), _listed(dropped - harmless, "{} weights are lost: {}")]
    vocabulary = model.config.get_text_config().vocab_size
    for name, source in pairs.items():
        shape, before = tuple(saved[name].shape), stored[source].shape
        resized = shape[1:] == before[1:] and shape[:1] == (vocabulary,)
        if shape != before and not resized:
            faults.append(f"{name} has shape {shape}, and {before} in it")
    return [fault for fault in faults if fault]


def _value_faults(weights: Iterable[tuple[str, Tensor]], stored: Mapping[str, Stored], pairs: Mapping[str, str]) -> list[str]:
    """Weights whose values differ from the checkpoint's in the rows that are looked at."""

    def is_other(weight: tuple[str, Tensor]) -> str:
        name, tensor = weight
        return name if name in pairs and not _same_rows(torch.atleast_1d(tensor), stored[pairs[name]]) else ""

    # `map` lets go of a weight before it asks for the next one.
    differing = list(filter(None, map(is_other, weights)))
    return [_listed(differing, "{} weights have other values: {}")] if differing else []


def _same_rows(tensor: Tensor, stored: Stored) -> bool:
    """Whether the rows that are looked at are the checkpoint's; a vector is looked at as a whole."""
    rows = min(len(tensor), stored.shape[0] if stored.shape else 1)
    spans = [(0, rows)] if tensor.dim() == 1 else [(row, row + 1) for row in sorted({0, rows // 2, rows - 1})]
    for first, last in spans:
        found, expected = tensor[first:last].detach().cpu(), stored.rows(first, last)
        if found.shape != expected.shape or not torch.allclose(found, expected.to(found.dtype), rtol=0, atol=0, equal_nan=True):
            return False
    return True
