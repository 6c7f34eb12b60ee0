"""Keys and values of a batch that grows by one token a step."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

BLOCK = 64
"""Tokens by which a layer grows: it is copied once in BLOCK steps, where transformers' own copies all of it in every step."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, written in place; windows are left to the attention mask."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.room: tuple[Tensor, Tensor] | None = None
        """(rows, heads, length or more, head size) keys and values."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, new tokens, head size) keys and values; returns all of them."""
        start, self.length = self.length, self.length + key_states.shape[-2]
        if self.room is None:
            self.is_initialized = True
            self.room = key_states[:, :, :0], value_states[:, :, :0]
        if self.length > self.room[0].shape[-2]:
            self.room = self._larger(self.room[0], start), self._larger(self.room[1], start)
        keys, values = self.room
        keys[:, :, start : self.length] = key_states
        values[:, :, start : self.length] = value_states
        return keys[:, :, : self.length], values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i what row beam_idx[i] was; rows may repeat and may be left out."""
        if self.room is not None:
            keys, values = (self._larger(old[:, :, : self.length].index_select(0, beam_idx), self.length) for old in self.room)
            self.room = keys, values

    def _larger(self, old: Tensor, used: int) -> Tensor:
        new = old.new_empty(old.shape[0], old.shape[1], self.length + BLOCK, old.shape[3])
        new[:, :, :used] = old[:, :, :used]
        return new


def growing_cache(config: PreTrainedConfig) -> Cache:
    """An empty cache for a model: growing layers for attention, transformers' own for recurrent layers."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else layer for layer in cache.layers
    ]
    return cache


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of keys and values that one token takes."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    kept = getattr(text, "num_key_value_heads", None) or heads
    return int(text.num_hidden_layers * 2 * kept * size * dtype.itemsize)
