"""The last layer at the read positions alone, which saves most of its work where few tokens are trained.

Only the norm and the head follow the last layer, and both act position by position. A position that is not read serves the
last layer with its key and its value, and needs no query, output projection or feed-forward there. Hooks therefore give the
modules that act on each position by itself the read positions alone; their other outputs are zeros that reach no loss. No
model's code is changed, and a layer whose modules have other names is computed in full.

Shape letters: T tokens of a row, R positions that are read, H hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

POSITIONWISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""The modules of a decoder layer whose output at a position depends on their input at that position alone."""
WORTH_IT = 0.9
"""The largest share of read positions at which picking them out costs less than computing all."""


class ReadOnlyLastLayer:
    """Hooks on a decoder layer that restrict its position-wise modules to the `layout.read_R` of the present row."""

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
        # The row is known by the layer's own arguments, since gradient checkpointing calls it again in the backward pass.
        read_R = getattr(kwargs.get("layout"), "read_R", None)
        self._n_tokens = args[0].shape[1]
        # Expert layers fail on an empty row.
        worth_it = read_R is not None and 0 < len(read_R) < WORTH_IT * self._n_tokens
        self._read_R = read_R if worth_it else None

    def _pick(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Before a module: its input (1, T, H) -> (1, R, H)."""
        return None if self._read_R is None else (args[0].index_select(1, self._read_R), *args[1:])

    def _put_back(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        """After a module: its output (1, R, H) -> (1, T, H), with zeros elsewhere. Raises TypeError if it is no tensor."""
        if self._read_R is None:
            return None
        if not torch.is_tensor(output):
            raise TypeError(f"{type(module).__name__} returns {type(output).__name__}, not a tensor")
        return output.new_zeros(1, self._n_tokens, output.shape[-1]).index_copy(1, self._read_R, output)
