"""Segment attention: packed completions attend to their prompt and to themselves, never to a neighbour.

It is registered with transformers under the name SEGMENTS. A model's forward pass hands its keyword arguments down to every
attention layer, so the `layout` of a batch reaches this function without a change of the model's code. On a CPU each segment
is one call of scaled_dot_product_attention; on CUDA in half precision the whole row is one call of flash attention (`flash`).
Scores with a soft cap, and attention sinks, have no such kernel: they are computed as they are defined.

An architecture may hand over more than is known here. What would change the numbers is an error, never left out in silence.

Shape letters: T tokens of a row, S tokens of a segment, R positions that are read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from tulu.model import flash
from tulu.model.batch import Batch, Segment
from tulu.model.private_state import supports_sdpa
from tulu.model.sending import distinct, send

SEGMENTS = "tulu_segments"
"""The name of this attention in transformers."""
HARMLESS = {"position_ids", "position_embeddings", "output_attentions", "output_hidden_states", "logits_to_keep"}
"""Keyword arguments that reach attention layers and change nothing there: positions are in the queries and keys already."""
FLASH_DEVICE = "cuda"
"""The type of device that has flash attention."""
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Rule:
    """How one attention layer turns scores into an average of values."""

    scaling: float | None
    """What scores are multiplied by; None stands for 1/√d."""
    dropout: float
    window: int | None
    """A key is seen while query - key < window."""
    softcap: float | None
    """Scores s become softcap · tanh(s / softcap)."""
    sinks: Tensor | None
    """(heads,) the score of a key without a value, which takes its share of the attention of every query."""

    @property
    def has_kernel(self) -> bool:
        """Whether the attention kernels of torch compute it."""
        return self.softcap is None and self.sinks is None


class Layout:
    """The keys that each query of a row may see. Its masks and indices are built once and shared by all layers."""

    def __init__(self, segments: Sequence[Segment], device: torch.device, read_R: Tensor | None = None) -> None:
        self.segments = tuple(segments)
        self.device = device
        self.read_R = read_R
        """The positions whose last hidden state is read, without repetition; None where all may be read."""
        self._masks: dict[tuple[int, int, int, torch.dtype], Tensor] = {}

    def mask(self, segment: Segment, window: int | None, dtype: torch.dtype, always: bool = False) -> Tensor | None:
        """(queries, keys) additive mask of a segment, the prefix's keys first.

        It is None where plain causal attention is the same, unless it is `always` wanted.
        """
        keys = segment.prefix_length + segment.length
        window = window if window is not None and window < keys else 0
        if not segment.prefix_length and not window and not always:
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
    def row(self) -> tuple[Tensor | None, flash.Row]:
        """The row as flash attention takes it, its segments one after the other: the positions of their keys, and their lengths.

        The keys of a prompt are repeated for each of its completions. None stands for keys that are the row as it is.
        """
        queries = [segment.length for segment in self.segments]
        keys = [segment.prefix_length + segment.length for segment in self.segments]
        positions = None
        if any(segment.prefix_length for segment in self.segments):
            runs = [run for segment in self.segments for run in segment.runs]
            positions = send(torch.cat([torch.arange(start, end) for start, end in runs]), self.device)
        return positions, flash.Row(self._cumulative(queries), self._cumulative(keys), max(queries), max(keys))

    def _cumulative(self, lengths: Sequence[int]) -> Tensor:
        return send(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), self.device)


def layout(batch: Batch, read: Tensor | None = None) -> Layout:
    """The attention layout of a row: a prompt and the completion that follows it are one causal segment.

    `read` holds the positions whose last hidden state is read, where a position may be repeated; None stands for all.
    """
    segments: list[Segment] = []
    for completion in batch.completions:
        follows_prompt = completion.start == completion.prefix_end
        start = completion.prefix_start
        segments.append(Segment(start, completion.end, start, start) if follows_prompt else completion)
    return Layout(segments, batch.tokens_T.device, None if read is None else distinct(read))


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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of one packed row: query (1, heads, T, d), key and value (1, key heads, T, d) -> (1, T, heads, d).

    Grouped queries, sliding windows, soft caps and sinks (`s_aux`) are those of transformers. Raises NotImplementedError if
    the layer asks for anything else.
    """
    refuse_unknown(attention_mask, others)
    rule = Rule(scaling, dropout if module.training else 0.0, sliding_window, softcap, s_aux)
    if query.device.type == FLASH_DEVICE:
        # Some rotary embeddings return float32, whatever they are given.
        query, key = query.to(value.dtype), key.to(value.dtype)
        has_flash = value.dtype in HALF and rule.has_kernel and flash.fits(query.shape[-1], value.shape[-1])
        if has_flash and (attention := flash.chosen(query.device)) is not None:
            return _attention_of_row(attention, query, key, value, layout, rule), None
    return _attention_by_segment(query, key, value, layout, rule), None


def refuse_unknown(attention_mask: Tensor | None, others: Mapping[str, Any]) -> None:
    """Raise NotImplementedError if a layer hands over what segment attention would leave out."""
    if attention_mask is not None:
        raise NotImplementedError("its attention has a mask of its own making")
    if others.get("is_causal") is False:
        raise NotImplementedError("its attention is not causal")
    # None and False stand for what an architecture can do and this model does not.
    unknown = [name for name, value in others.items() if not (value is None or isinstance(value, bool) or name in HARMLESS)]
    if unknown:
        raise NotImplementedError(f"its attention takes {', '.join(unknown)}, which packed rows do not know")


def _attention_by_segment(query: Tensor, key: Tensor, value: Tensor, layout: Layout, rule: Rule) -> Tensor:
    """Attention of a row in one call per segment; shapes as in `segment_attention`."""
    lengths = [segment.length for segment in layout.segments]
    # The row is split, not sliced, because the gradient of a slice is a tensor of zeros as long as the whole row.
    pieces = [tensor.split(lengths, dim=2) for tensor in (query, key, value)]
    prompts: dict[int, tuple[Tensor, Tensor]] = {}
    attend = _kernel if rule.has_kernel else _as_defined
    outputs = []
    for segment, query_S, key_S, value_S in zip(layout.segments, *pieces, strict=True):
        if segment.prefix_length:
            # The prompt is the beginning of the segment of the completion that follows it.
            opening = prompts[segment.prefix_start]
            prefix_key, prefix_value = (tensor[:, :, : segment.prefix_length] for tensor in opening)
            key_S, value_S = torch.cat([prefix_key, key_S], dim=2), torch.cat([prefix_value, value_S], dim=2)
        else:
            prompts[segment.start] = key_S, value_S
        mask = layout.mask(segment, rule.window, query.dtype, always=not rule.has_kernel)
        outputs.append(attend(query_S, key_S, value_S, mask, rule))
    # Some architectures view the output as (1, T, heads · d), which needs it in one piece.
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def _kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    """Attention of one segment by a kernel of torch."""
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        dropout_p=rule.dropout,
        scale=rule.scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _as_defined(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    """Attention of one segment from its definition, with a soft cap and sinks; all scores of the segment are kept."""
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if rule.scaling is None else rule.scaling)
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if mask is not None:
        scores = scores + mask
    if rule.sinks is not None:
        sinks = rule.sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    shares = torch.nn.functional.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    shares = torch.nn.functional.dropout(shares[..., : key.shape[2]].to(value.dtype), rule.dropout)
    return shares @ value


def _attention_of_row(attention: flash.Attend, query: Tensor, key: Tensor, value: Tensor, layout: Layout, rule: Rule) -> Tensor:
    """Attention of a row in one call of flash attention; shapes as in `segment_attention`."""
    if rule.dropout:
        raise NotImplementedError("flash attention of a row has no dropout; set attention_dropout to 0 in the model's config")
    positions, row = layout.row
    # The gradient of tensor[0] is a copy into a tensor of zeros, that of squeeze is a view.
    query, key, value = (tensor.squeeze(0).transpose(0, 1) for tensor in (query, key, value))
    if positions is not None:
        key, value = key[positions], value[positions]
    query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    return flash.attend(attention, query, key, value, row, rule.scaling, rule.window)[None]


def ordinary_attention_of(model: PreTrainedModel) -> str:
    """The name of the fastest attention of transformers that computes what the architecture defines.

    SDPA silently leaves out soft caps, and attention sinks are refused by it.
    """
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "eager" if capped or not supports_sdpa(model) else "sdpa"


AttentionInterface.register(SEGMENTS, segment_attention)
