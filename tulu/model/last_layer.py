"""The last layer at read positions only: what nobody reads needs no query, output projection or feed-forward there.

Behind the last layer come only the norm and the head, position by position. A hidden state that is not read serves
the last layer with its key and value and with nothing else, so the modules that act on each position by itself are
given the read positions alone; their other outputs are zeros that reach no loss. Hooks do it, so that no model's
code is touched and a module without such names is simply computed in full.
"""

from typing import Any

import torch
from torch import Tensor, nn

POSITIONWISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""Modules of a decoder layer whose output at a position depends on their input at that position alone."""
WORTH_IT = 0.9
"""Largest share of read positions at which picking them out costs less than computing all."""


class ReadOnlyLastLayer:
    """Hooks on a decoder layer that keep its position-wise modules to `layout.read_R` of the row in hand."""

    def __init__(self, layer: nn.Module) -> None:
        modules = dict(layer.named_modules())
        chosen = [modules[name] for name in POSITIONWISE if name in modules]
        self._read_R: Tensor | None = None
        self._n_tokens = 0
        self._handles: list[Any] = [layer.register_forward_pre_hook(self._enter, with_kwargs=True)]
        for module in chosen:
            self._handles += [module.register_forward_pre_hook(self._pick), module.register_forward_hook(self._put_back)]

    def remove(self) -> None:
        """Let the layer compute everything again."""
        for handle in self._handles:
            handle.remove()

    def _enter(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Read from the layer's own arguments: gradient checkpointing calls it a second time, in the backward pass.
        read_R = getattr(kwargs.get("layout"), "read_R", None)
        self._n_tokens = args[0].shape[1]
        # Experts are not written for an empty row.
        worth_it = read_R is not None and 0 < len(read_R) < WORTH_IT * self._n_tokens
        self._read_R = read_R if worth_it else None

    def _pick(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """(1, T, H) -> (1, R, H)."""
        return None if self._read_R is None else (args[0].index_select(1, self._read_R), *args[1:])

    def _put_back(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        """(1, R, H) -> (1, T, H)."""
        if self._read_R is None:
            return None
        if not torch.is_tensor(output):
            raise TypeError(f"{type(module).__name__} returns {type(output).__name__}, not a tensor")
        return output.new_zeros(1, self._n_tokens, output.shape[-1]).index_copy(1, self._read_R, output)
