"""Segment attention: packed completions attend to their prompt and to themselves, never to a neighbour.

It is registered with transformers under the name SEGMENTS. A model's forward pass hands its keyword arguments down to every
attention layer, so the `layout` of a batch reaches this function without a change of the model's code. On a CPU each segment
is one call of scaled_dot_product_attention; on CUDA in half precision the whole row is one call of torch's variable-length
flash attention.

Shape letters: T tokens of a row, S tokens of a segment, R positions that are read.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tulu.model.batch import Batch, Segment

SEGMENTS = "tulu_segments"
"""The name of this attention in transformers."""


class Layout:
    """The keys that each query of a row may see. Its masks and indices are built once and shared by all layers."""

    def __init__(self, segments: Sequence[Segment], device: torch.device, read_R: Tensor | None = None) -> None:
        self.segments = tuple(segments)
        self.device = device
        self.read_R = read_R
        """The positions whose last hidden state is read, without repetition; None where all may be read."""
        self._masks: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def mask(self, segment: Segment, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """(queries, keys) additive mask of a segment, the prefix's keys first; None where plain causal attention is the same."""
        keys = segment.prefix_length + segment.length
        window = window if window is not None and window < keys else 0
        if not segment.prefix_length and not window:
            return None
        key = (segment.prefix_length, segment.length, window, dtype)
        if key not in self._masks:
            query_position = torch.arange(segment.prefix_length, keys, device=self.device)[:, None]
            key_position = torch.arange(keys, device=self.device)[None, :]
            visible = key_position <= query_position
            if window:
                visible &= query_position - key_position < window
            self._masks[key] = torch.zeros(visible.shape, dtype=dtype, device=self.device).masked_fill(~visible, -torch.inf)
        return self._masks[key]

    @cached_property
    def varlen(self) -> tuple[Tensor, Tensor, Tensor, int, int]:
        """What variable-length attention takes for the row, its segments one after the other.

        It is (key positions of all segments, cumulative numbers of queries, cumulative numbers of keys, most queries of a
        segment, most keys of a segment). The keys of a prompt are repeated for each of its completions.
        """
        keys = [
            torch.cat([torch.arange(segment.prefix_start, segment.prefix_end), torch.arange(segment.start, segment.end)])
            for segment in self.segments
        ]
        queries = [segment.length for segment in self.segments]
        return (
            torch.cat(keys).to(self.device),
            torch.tensor([0, *accumulate(queries)], dtype=torch.int32, device=self.device),
            torch.tensor([0, *accumulate(map(len, keys))], dtype=torch.int32, device=self.device),
            max(queries),
            max(map(len, keys)),
        )


def layout(batch: Batch, read: Tensor | None = None) -> Layout:
    """The attention layout of a row: a prompt and the completion that follows it are one causal segment.

    `read` holds the positions whose last hidden state is read, where a position may be repeated; None stands for all.
    """
    segments: list[Segment] = []
    for completion in batch.completions:
        follows_prompt = completion.start == completion.prefix_end
        start = completion.prefix_start
        segments.append(Segment(start, completion.end, start, start) if follows_prompt else completion)
    return Layout(segments, batch.tokens_T.device, None if read is None else read.unique())


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    layout: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row: query (1, heads, T, d), key and value (1, key heads, T, d) -> (1, T, heads, d).

    Grouped queries and sliding windows are those of transformers: a key is seen while query - key < window.
    """
    attend = _varlen_attention if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16) else _sdpa_attention
    return attend(query, key, value, layout, scaling, dropout if module.training else 0.0, sliding_window), None


def _sdpa_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Attention of a row in one call per segment; shapes as in `segment_attention`."""
    grouped = query.shape[1] != key.shape[1]
    lengths = [segment.length for segment in layout.segments]
    # The row is split, not sliced, because the gradient of a slice is a tensor of zeros as long as the whole row.
    pieces = [tensor.split(lengths, dim=2) for tensor in (query, key, value)]
    prompts: dict[int, tuple[Tensor, Tensor]] = {}
    outputs = []
    for segment, query_S, key_S, value_S in zip(layout.segments, *pieces, strict=True):
        if segment.prefix_length:
            # The prompt is the beginning of the segment of the completion that follows it.
            opening = prompts[segment.prefix_start]
            prefix_key, prefix_value = (tensor[:, :, : segment.prefix_length] for tensor in opening)
            key_S, value_S = torch.cat([prefix_key, key_S], dim=2), torch.cat([prefix_value, value_S], dim=2)
        else:
            prompts[segment.start] = key_S, value_S
        mask = layout.mask(segment, window, query.dtype)
        outputs.append(
            scaled_dot_product_attention(
                query_S,
                key_S,
                value_S,
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _varlen_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, dropout: float, window: int | None
) -> Tensor:
    """Attention of a row in one call of flash attention; shapes as in `segment_attention`."""
    from torch.nn.attention.varlen import varlen_attn

    if dropout:
        raise NotImplementedError("variable-length attention has no dropout; set attention_dropout to 0 in the model's config")
    keys, cumulative_queries, cumulative_keys, longest_queries, longest_keys = layout.varlen
    output: Any = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1)[keys],
        value[0].transpose(0, 1)[keys],
        cumulative_queries,
        cumulative_keys,
        longest_queries,
        longest_keys,
        scale=scaling,
        # The window of transformers includes the query itself; that of flash attention counts the keys to its left.
        window_size=(-1, 0) if window is None else (window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    attended: Tensor = output[None]
    return attended


AttentionInterface.register(SEGMENTS, segment_attention)
