"""What is measured of a model when it is loaded: that what packed or padded rows give is what each document alone gives.

transformers knows hundreds of architectures, and a list of those that can be packed would be wrong in the next version. So
a few short documents are computed packed and, as the architecture itself defines it, one by one; the two must agree.

Some features begin far beyond such short documents: a window of 4,096 tokens, a chunk of 8,192, a rotary scaling that sets
in at 4,096, a temperature that grows every 8,192 positions. Running the model at those lengths would cost minutes on a CPU.
Instead the model's own thresholds are lowered below the length of the documents while it is measured, in its configuration
and in its modules, and restored afterwards. It is the same code with the same weights, and a smaller window is computed in
the same way as a large one.

Rounding hides small features, and makes large differences where there is none: in bfloat16 two right computations differ by
a few percent, as attention with and without a soft cap does, and a router of experts that rounds otherwise chooses others. A
model with weights in half precision is therefore measured in float32, one module after the other, so that no second copy of
it is needed. Attention is moreover compared with the architecture's own, layer by layer. Scores are made large for that,
since a soft cap on small scores does nothing.

Shape letters: T tokens of a row, H hidden size.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from tulu.model.attention import Layout, segment_attention
from tulu.model.batch import Batch, Segment, documents, pack_row
from tulu.model.gathering import refuse_not_finite
from tulu.model.private_state import eager_attention_of
from tulu.types import Completion, Group

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 2e-2}
"""By dtype, the largest mean |packed - plain| of hidden states, relative to their mean size, that passes as rounding.
Where a neighbour leaks into a document, its hidden states move by about their own size."""
HALF = (torch.bfloat16, torch.float16)
ATTENTION_TOLERANCE = 1e-4
"""The same for the output of one attention layer in float32."""
SCORES = 4.0
"""The standard deviation that attention scores are given, so that the largest are near 10."""
COMPARED = "tulu_compared"
"""The name in transformers of the architecture's own attention, with segment attention compared to it."""
BELOW, BETWEEN = 6, 15
"""A length below all documents of `probe`, and one between them: half are shorter."""


def probe(model: PreTrainedModel, seed: int) -> Group:
    """A group of random tokens: a prompt of 9, and completions of 7, 5 and 11."""
    vocabulary = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(seed)

    def tokens(n: int) -> list[int]:
        return torch.randint(0, vocabulary, (n,), generator=generator).tolist()

    return Group(tokens(9), tuple(Completion(tokens(n), [True] * n) for n in (7, 5, 11)))


@contextmanager
def lowered_thresholds(model: PreTrainedModel) -> Iterator[bool]:
    """Lower what begins beyond the documents of `probe` while the context lasts; says whether there is any such thing."""
    holders: dict[int, dict[str, Any]] = {}
    for module in model.modules():
        holders[id(module)] = vars(module)
        config = vars(module).get("config")
        if config is not None:
            holders[id(config)] = vars(config)
            for parameters in _dictionaries(vars(config).get("rope_parameters")):
                holders[id(parameters)] = parameters
    # Dynamic scaling counts from the largest position of the configuration; for all others that number is only a size.
    dynamic = any("dynamic" in str(getattr(module, "rope_type", "")) for module in model.modules())
    before: list[tuple[dict[str, Any], str, Any]] = []
    for fields in holders.values():
        for name, value in list(fields.items()):
            low = _lowered(name, dynamic)
            if low and isinstance(value, int | float | Tensor) and not isinstance(value, bool | nn.Parameter) and value > low:
                before.append((fields, name, value))
                fields[name] = low
    try:
        yield bool(before)
    finally:
        for fields, name, value in before:
            fields[name] = value


def _lowered(name: str, dynamic: bool) -> int:
    """What the threshold of this name is lowered to; 0 where the name is not that of a threshold."""
    if "window" in name or name in ("attention_chunk_size", "floor_scale", "index_topk"):
        return BELOW
    positions = ("original_max_position_embeddings", "original_max_seq_len", "max_seq_len_cached")
    return BETWEEN if name in positions or (dynamic and name == "max_position_embeddings") else 0


def _dictionaries(parameters: Any) -> Iterator[dict[str, Any]]:
    """The rotary parameters of a configuration, and those of each type of layer where they differ."""
    if isinstance(parameters, dict):
        yield parameters
        yield from (value for value in parameters.values() if isinstance(value, dict))


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Compute in float32 while the context lasts, with weights in half precision: each module's own are widened for its call."""
    narrow: dict[Tensor, Tensor] = {}

    def own(module: nn.Module) -> list[Tensor]:
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        return [tensor for tensor in tensors if tensor.dtype in HALF or tensor in narrow]

    def widen(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        for tensor in own(module):
            if tensor not in narrow:
                narrow[tensor] = tensor.data
                tensor.data = tensor.data.float()
        # Some code brings an input to the dtype of a weight just before the call.
        return tuple(value.float() if torch.is_tensor(value) and value.dtype in HALF else value for value in args)

    def restore(module: nn.Module, args: Any, output: Any) -> None:
        for tensor in own(module):
            tensor.data = narrow.pop(tensor)

    handles = []
    for module in model.modules():
        if own(module):
            # Where weights are lent for a call, they are narrow again before they are taken back.
            restoring = module.register_forward_hook(restore, prepend=True, always_call=True)
            handles += [module.register_forward_pre_hook(widen), restoring]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for tensor, data in narrow.items():
            tensor.data = data


@dataclass(frozen=True)
class SelfCheck:
    """The measurements of one model. Each says what is wrong, in words, and nothing where all is well."""

    owner: PreTrainedModel
    """The model with its head, whose attention is switched."""
    together: Callable[[Batch], list[Tensor]]
    """The hidden states of every completion of a batch behind its prompt, (T, H) each, as the trunk computes them."""
    alone: Callable[..., Tensor]
    """(T, H) hidden states of one document by transformers' own forward pass; keyword arguments reach attention layers."""

    @property
    def device(self) -> torch.device:
        return next(self.owner.parameters()).device

    def fault(self, attention: str, compare: bool) -> str:
        """Why rows of several documents are not exact under the given attention; empty where they are.

        With `compare`, segment attention is also compared with the architecture's own, layer by layer.
        """
        half = any(parameter.dtype in HALF for parameter in self.owner.parameters())
        with in_float32(self.owner) if half and self._takes_float32() else nullcontext():
            found = self._fault(attention, compare)
            if not found:
                with lowered_thresholds(self.owner) as any_lowered:
                    beyond = self._fault(attention, compare) if any_lowered else ""
                found = beyond and f"beyond its window or its first positions, {beyond}"
        return found or (self._half_fault(attention) if half else "")

    def _takes_float32(self) -> bool:
        """Whether the architecture's code lets a model with weights in half precision compute in float32."""
        tokens_T = torch.tensor(probe(self.owner, 1).prompt, device=self.device)
        self.owner.set_attn_implementation("eager")
        try:
            with in_float32(self.owner):
                return self.alone(tokens_T).dtype == torch.float32
        except RuntimeError:
            # It uses a weight outside the module that has it, or asks for the dtype of the model's first weight.
            return False

    def _half_fault(self, attention: str) -> str:
        """Half precision has kernels of its own, which may refuse a model, and a smaller range of numbers."""
        self.owner.set_attn_implementation(attention)
        together = self.together(pack_row([probe(self.owner, seed) for seed in (1, 2)]).to(self.device))
        finite = all(bool(hidden_TH.isfinite().all()) for hidden_TH in together)
        return "" if finite else "hidden states are not finite numbers in half precision"

    def _fault(self, attention: str, compare: bool) -> str:
        first, second, changed = (probe(self.owner, seed) for seed in (1, 2, 3))
        batch = pack_row([first, second]).to(self.device)
        self.owner.set_attn_implementation(attention)
        together = self.together(batch)
        moved = self.together(pack_row([first, changed]).to(self.device))
        # Eager attention computes what the architecture defines; SDPA silently leaves out soft caps.
        self.owner.set_attn_implementation("eager")
        alone = [self.alone(tokens_T) for tokens_T in documents(batch)]
        off = _difference(together, alone)
        if not math.isfinite(off):
            refuse_not_finite(self.owner)
        if not off <= TOLERANCE[alone[0].dtype]:
            return f"hidden states differ from those of each document alone by {off:.1e} of their size"
        # Experts take all tokens of a row in one product, whose order of summation may depend on the neighbours.
        n_first = len(first.completions)
        leak = _difference(moved[:n_first], together[:n_first])
        if not leak <= TOLERANCE[alone[0].dtype]:
            return f"changing one document moves another by {leak:.1e} of its size"
        return self._attention_fault(documents(batch)[0]) if compare else ""

    def _attention_fault(self, tokens_T: Tensor) -> str:
        comparison = Comparison()
        self.owner.set_attn_implementation(COMPARED)
        self.alone(tokens_T, comparison=comparison)
        if comparison.largest > ATTENTION_TOLERANCE:
            return f"its attention is not segment attention: they differ by {comparison.largest:.1e} of their size"
        return ""


def _difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest mean difference of a document's hidden states, relative to the mean size of all."""
    scale = torch.cat(list(expected)).abs().mean()
    # The largest of a list with NaN may be any of them; a tensor's is NaN.
    return float(torch.stack([(a - b).abs().mean() for a, b in zip(found, expected, strict=True)]).max() / scale)


class Comparison:
    """What the layers of one forward pass found: the largest difference, relative to the size of a layer's output."""

    def __init__(self) -> None:
        self.largest = 0.0


def compared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    comparison: Comparison,
    **options: Any,
) -> tuple[Tensor, Any]:
    """The architecture's own attention of one document, and segment attention of the same in float32 beside it."""
    eager = eager_attention_of(module)
    if eager is None:
        raise NotImplementedError("its attention has no definition to compare with")
    result: tuple[Tensor, Any] = eager(module, query, key, value, attention_mask, **options)
    query, key, value = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (query, key, value))
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    scores = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).transpose(-1, -2) * scaling
    query = query * (SCORES / scores.std().clamp(min=1e-6))
    mask = None if attention_mask is None else attention_mask.to(query.dtype)
    expected, _ = eager(module, query, key, value, mask, **options)
    document = Layout([Segment(0, query.shape[2], 0, 0)], query.device)
    found, _ = segment_attention(module, query, key, value, None, layout=document, **options)
    off = float((found - expected).abs().mean() / expected.abs().mean())
    # NaN is a difference too.
    comparison.largest = max(comparison.largest, off if off == off else float("inf"))
    return result


AttentionInterface.register(COMPARED, compared_attention)
AttentionMaskInterface.register(COMPARED, eager_mask)
