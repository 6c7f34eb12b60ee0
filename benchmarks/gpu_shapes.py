"""Models of given shapes made on the device, the FLOPs that training on a packed row takes, and what a card can do.

MFU, the share of a card's peak that is used, counts what a model's definition needs and no implementation can save:

    6 · N · T  +  12 · L · h · Σ pairs  +  6 · V · h · R

for T tokens through N parameters outside the embeddings (2 FLOPs forward and 4 backward for each), L layers of h = heads ·
head size in which a query sees `pairs` keys (scores and values, 2 FLOPs each, forward once and backward twice), and R
positions that are projected onto V logits. Recomputed activations do not count.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from tulu.data.chat import make_byte_tokenizer
from tulu.model.attention import layout
from tulu.model.batch import Batch


@dataclass(frozen=True)
class Shape:
    """The size of a dense model with a gated feed-forward."""

    name: str
    family: str
    """transformers' name of the architecture."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    tied: bool = False
    """Whether input and output embeddings are one."""
    takes_steps: bool = True
    """Whether the optimizer is timed too; that of a 7B model does not fit one card."""

    @property
    def body(self) -> int:
        """Parameters outside the embeddings, norms left out (under 0.1 %)."""
        kv = self.hidden * self.kv_heads // self.heads
        return self.layers * (2 * self.hidden**2 + 2 * self.hidden * kv + 3 * self.hidden * self.feed_forward)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.body + (1 if self.tied else 2) * self.vocabulary * self.hidden

    @property
    def activations(self) -> int:
        """Values that a layer keeps of a token for its backward pass: those of `tulu plan` (tulu/config/plan.py)."""
        return 8 * self.hidden + 2 * self.hidden * self.kv_heads // self.heads + 4 * self.feed_forward


SHAPES = (
    Shape("OLMo 2 1B", "olmo2", 2048, 16, 16, 16, 8192, 100_352),
    Shape("Llama 3 1B", "llama", 2048, 16, 32, 8, 8192, 128_256, tied=True),
    Shape("OLMo 2 7B", "olmo2", 4096, 32, 32, 32, 11_008, 100_352, takes_steps=False),
    Shape("Llama 3 8B", "llama", 4096, 32, 32, 8, 14_336, 128_256, takes_steps=False),
)
"""Those of the released models."""
TINY = (
    Shape("OLMo 2 tiny", "olmo2", 32, 2, 2, 2, 64, 320),
    Shape("Llama 3 tiny", "llama", 32, 2, 4, 2, 64, 320, tied=True, takes_steps=False),
)
"""Stand-ins for a CPU, so that every line of the benchmark runs in a test."""
POSITIONS = 32_768


def tokenizer() -> PreTrainedTokenizerBase:
    """A tokenizer that needs no file. Rows are random token ids, so it only has to be there."""
    return make_byte_tokenizer()


def new_model(
    shape: Shape, device: torch.device, dtype: torch.dtype, auto_class: Any = AutoModelForCausalLM, **options: Any
) -> Any:
    """A random model, made on the device: there a 7B model takes seconds, on a CPU minutes. The seed is always the same."""
    special = tokenizer()
    config = AutoConfig.for_model(
        shape.family,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.feed_forward,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=POSITIONS,
        bos_token_id=special.bos_token_id,
        eos_token_id=special.eos_token_id,
        pad_token_id=special.pad_token_id,
    )
    if "num_labels" in options:
        config.num_labels = options.pop("num_labels")
    torch.manual_seed(0)
    with torch.device(device):
        return auto_class.from_config(config, dtype=dtype, **options)


def visible_pairs(batch: Batch) -> float:
    """Σ over the row's segments of (query, key) pairs, where a causal triangle counts as half its square."""
    return sum(segment.length * segment.prefix_length + segment.length**2 / 2 for segment in layout(batch).segments)


def flops_of(shape: Shape, batches: Iterable[Batch], vocabulary: int | None = None) -> float:
    """FLOPs of one forward and backward pass over packed rows; a reward model has a `vocabulary` of 1."""
    total = 0.0
    for batch in batches:
        read = batch.n_trained if vocabulary is None else batch.n_completions
        total += flops(shape, batch.n_tokens, visible_pairs(batch), read, shape.vocabulary if vocabulary is None else vocabulary)
    return total


def flops(shape: Shape, tokens: float, pairs: float, read: float, vocabulary: int) -> float:
    """The formula at the head of this file."""
    return 6.0 * shape.body * tokens + 12.0 * shape.layers * shape.hidden * pairs + 6.0 * vocabulary * shape.hidden * read
