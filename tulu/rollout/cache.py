"""Keys and values of a batch that grows by one token per step."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

BLOCK = 64
"""Tokens by which a layer grows. It is copied once in BLOCK steps, while transformers' own layer copies itself in every step."""


class GrowingLayer(DynamicLayer):
    """One layer's keys and values, written in place. The attention mask takes care of sliding windows."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        """Tokens stored so far."""
        self.buffers: tuple[Tensor, Tensor] | None = None
        """Keys and values, both (rows, heads, at least `length`, head size)."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append (rows, heads, new tokens, head size) keys and values, and return all keys and values so far."""
        start, self.length = self.length, self.length + key_states.shape[-2]
        if self.buffers is None:
            self.is_initialized = True
            self.buffers = key_states[:, :, :0], value_states[:, :, :0]
        if self.length > self.buffers[0].shape[-2]:
            self.buffers = self._enlarge(self.buffers[0], start), self._enlarge(self.buffers[1], start)
        keys, values = self.buffers
        keys[:, :, start : self.length] = key_states
        values[:, :, start : self.length] = value_states
        return keys[:, :, : self.length], values[:, :, : self.length]

    def get_seq_length(self) -> int:
        """The number of tokens stored."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Make row i the former row beam_idx[i]. Rows may be repeated or left out."""
        if self.buffers is not None:
            keys, values = (tensor[:, :, : self.length].index_select(0, beam_idx) for tensor in self.buffers)
            self.buffers = self._enlarge(keys, self.length), self._enlarge(values, self.length)

    def _enlarge(self, tensor: Tensor, used: int) -> Tensor:
        larger = tensor.new_empty(tensor.shape[0], tensor.shape[1], self.length + BLOCK, tensor.shape[3])
        larger[:, :, :used] = tensor[:, :, :used]
        return larger


def growing_cache(config: PreTrainedConfig) -> Cache:
    """Make an empty cache for a model: growing layers for attention, transformers' own layers for recurrent ones."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) else layer for layer in cache.layers
    ]
    return cache


def bytes_per_token(config: PreTrainedConfig, dtype: torch.dtype) -> int:
    """The bytes of keys and values that one token takes in all layers."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    return int(text.num_hidden_layers * 2 * key_value_heads * head_size * dtype.itemsize)
