"""How much arithmetic training needs: the numerator of MFU, the share of what a device could do at most.

Only what the model needs is counted, as Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B) define it: neither what is
computed again under gradient checkpointing nor padding. A product of a token with a weight takes 2 operations forward, 2 back
to the input, and 2 to the gradient of the weight, which a frozen one does not get. Attention takes 4 for each pair of a query
and a key that it sees and each of the width of its heads, three times: 12 in all. An output head works where it is read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from tulu.model.batch import Batch
from tulu.model.head import TokenLogps
from tulu.model.trunk import Trunk

EXPERTS = ".experts."
"""What the names of weights hold of which a token passes through some alone."""
LINEAR = ("linear_attention", "recurrent", "mamba", "conv")
"""Kinds of layers whose tokens do not see all tokens before."""


@dataclass(frozen=True)
class Work:
    """Operations of the forward and backward pass of a model."""

    per_token: float
    per_read: float
    """Of the head, for every trained token."""
    attention: tuple[tuple[int | None, float], ...]
    """(window, operations for each pair of query and key) of the attention layers, those of one window together."""

    @classmethod
    def of(cls, module: nn.Module) -> "Work":
        """Of a module that is trained; it may hold several models, which then all read what is read."""
        trunks = [part for part in module.modules() if isinstance(part, Trunk)]
        heads = [part for part in module.modules() if isinstance(part, TokenLogps)]
        per_token = sum(_products(trunk) for trunk in trunks)
        per_read = sum(_factor(head.weight) * _size(head.weight) for head in heads)
        attention: dict[int | None, float] = {}
        for trunk in trunks:
            for window, operations in _layers(trunk.owner.config.get_text_config()):
                attention[window] = attention.get(window, 0.0) + operations
        return cls(per_token, per_read, tuple(attention.items()))

    def on(self, batches: Iterable[Batch]) -> float:
        """Operations of one training pass over the batches."""
        return sum(self._on(batch) for batch in batches)

    def _on(self, batch: Batch) -> float:
        pairs = sum(operations * pairs_of(batch, window) for window, operations in self.attention)
        return self.per_token * batch.n_tokens + self.per_read * batch.n_trained + pairs


def pairs_of(batch: Batch, window: int | None) -> float:
    """The pairs of a query and a key that it sees, in all documents of a row; the pairs of a prompt count once."""
    prompts = {(segment.prefix_start, segment.prefix_end) for segment in batch.completions}
    whole = sum(_causal(segment.prefix_length + segment.length, window) for segment in batch.completions)
    again = sum(_causal(segment.prefix_length, window) for segment in batch.completions)
    return whole - again + sum(_causal(end - start, window) for start, end in prompts)


def _causal(length: int, window: int | None) -> float:
    """Half of a square, or of one as wide as the window and then a band."""
    if window is None or length <= window:
        return length * length / 2
    return window * window / 2 + (length - window) * window


def _products(trunk: Trunk) -> float:
    """Operations of a token with the weights of the layers. A row of the embeddings is looked up, which is none."""
    config: Any = trunk.owner.config.get_text_config()
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None) or 0
    used = getattr(config, "num_experts_per_tok", None) or experts
    embeddings = trunk.model.get_input_embeddings()
    looked_up = {id(parameter) for parameter in embeddings.parameters()} if embeddings is not None else set()
    total = 0.0
    for name, parameter in trunk.model.named_parameters():
        if id(parameter) not in looked_up:
            share = used / experts if experts and EXPERTS in name else 1.0
            total += share * _factor(parameter) * _size(parameter)
    return total


def _factor(parameter: nn.Parameter) -> float:
    return 6.0 if parameter.requires_grad else 4.0


def _size(parameter: Any) -> int:
    """Numbers of a weight, also where ZeRO-3 has spread it."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())


def _layers(config: Any) -> Iterator[tuple[int | None, float]]:
    """(window, operations for each pair) of every attention layer."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        # Mamba and RWKV have recurrent layers alone.
        return
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    default = "sliding_attention" if window else "full_attention"
    for kind in getattr(config, "layer_types", None) or [default] * config.num_hidden_layers:
        if not any(word in kind for word in LINEAR):
            yield (window if "sliding" in kind else None), 12.0 * width
