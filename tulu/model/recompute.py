"""Gradient checkpointing: activations that are computed a second time in the backward pass instead of being kept.

It is done layer by layer. What is kept of a layer is its input alone, or with "selective" also what costs most to compute again
for the memory that it takes: the output of attention, and of every second matrix product.
"""

from functools import partial
from typing import Any, Literal

from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import PreTrainedModel

Recompute = bool | Literal["selective"]
"""Nothing (false), every layer (true), or what is cheap to compute again."""
PRODUCTS = ("mm", "addmm", "bmm", "_grouped_mm")
"""What torch calls matrix products."""
ATTENTION = ("attention", "attn")
"""What is in the names of all attention kernels."""


def enable_recompute(model: PreTrainedModel, recompute: Recompute) -> None:
    """Let a model compute activations again in its backward passes while it trains."""
    if not recompute:
        return
    settings: dict[str, Any] = {"use_reentrant": False}
    if recompute == "selective":
        settings["context_fn"] = _selective_contexts
    model.gradient_checkpointing_enable(settings)


def _selective_contexts() -> Any:
    """The contexts of one layer's forward pass, and of its second."""
    return create_selective_checkpoint_contexts(partial(_policy, {False: 0, True: 0}))


def _policy(products: dict[bool, int], context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    """Whether the output of an operation is kept; `products` counts those of the first and of the second pass."""
    # `aten.mm.default`: where it is from, what it does, and which variant it is.
    names = str(operation).split(".")
    name = names[1] if len(names) == 3 else names[-1]
    if name in PRODUCTS:
        products[context.is_recompute] += 1
        keep = products[context.is_recompute] % 2 == 0
    else:
        keep = any(word in name for word in ATTENTION)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
