"""How large a model is: parameters, widths and layers, from its configuration alone."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.known import known_model

RECURRENT = "linear_attention"
"""The kind of a layer of Gated DeltaNet."""
WITHOUT_PAIRS = (RECURRENT, "recurrent", "mamba", "conv")
"""Parts of the kinds of layers whose tokens read a state of fixed size, not the tokens before."""


@dataclass(frozen=True)
class Size:
    """A model's size; what follows `active` is 0 or empty where only the number of parameters is known."""

    parameters: float
    active: float
    """Parameters that one token passes through: fewer than all in a mixture of experts."""
    layers: int = 0
    hidden: int = 0
    """Width of a token's hidden state."""
    kv: int = 0
    """Width of a token's keys, and of its values."""
    feed_forward: int = 0
    """Width of the feed-forward layer, summed over the experts that one token passes through."""
    embeddings: float = 0.0
    """Parameters of the input embeddings and of the output head, where that is another matrix."""
    vocabulary: int = 0
    heads: int = 0
    """Width of a token's queries: heads × their width."""
    windows: tuple[tuple[int | None, int], ...] = ()
    """(most tokens that a query sees, how many layers see so many) of the attention layers; None is all tokens."""

    @property
    def body(self) -> float:
        """Parameters outside the embeddings that one token passes through."""
        return self.active - self.embeddings

    @property
    def has_experts(self) -> bool:
        return self.active < self.parameters


def model_size(name: str | None, config: Mapping[str, Any] | None = None) -> Size | None:
    """The size of a local model folder, a cached hub model, a released model or a configuration; None where it is not known
    offline."""
    try:
        return _count(config if config is not None else _config(name))
    except KeyError:
        return None


def size_source(name: str | None) -> str:
    """Where the size of a model is from: the source of a released model, else its configuration."""
    known = None if local_config(name) else known_model(name)
    return "its configuration" if known is None else known.source


def local_config(name: str | None) -> Path | None:
    """The configuration of a local folder or of a model in the hub's cache."""
    if name is None:
        return None
    path = Path(name) / "config.json"
    if path.is_file():
        return path
    from huggingface_hub import try_to_load_from_cache

    cached = None if Path(name).is_absolute() else try_to_load_from_cache(name, "config.json")
    return Path(cached) if isinstance(cached, str) else None


def _config(name: str | None) -> Mapping[str, Any]:
    """The configuration of a model; empty where it is not known offline."""
    path = local_config(name)
    if path is not None:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    known = known_model(name)
    return {} if known is None else known.config


def _count(config: Mapping[str, Any]) -> Size:
    """Parameters of a decoder with gated feed-forward layers, norms left out (under 0.1 %).

    Per layer: queries and output h·n·d each, keys and values h·k·d each, three matrices h·f for each expert. A layer of linear
    attention (Gated DeltaNet) has queries, keys, values, gates and output of widths of its own instead, and two numbers a head.
    """
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    kv = (config.get("num_key_value_heads") or heads) * width
    feed_forward = config.get("moe_intermediate_size") or config["intermediate_size"]
    experts = config.get("num_experts") or config.get("num_local_experts") or 1
    used = config.get("num_experts_per_tok") or 1
    kinds = _kinds(config)
    recurrent = kinds[RECURRENT]
    attention = (layers - recurrent) * (2 * hidden * heads * width + 2 * hidden * kv)
    if recurrent:
        attention += recurrent * _recurrent(config, hidden, heads)
    router = hidden * experts if experts > 1 else 0
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)

    def total(n: int) -> float:
        return float(attention + layers * (router + n * 3 * hidden * feed_forward) + embeddings)

    window = config.get("sliding_window")
    attending = {kind: count for kind, count in kinds.items() if not any(part in kind for part in WITHOUT_PAIRS)}
    windows = tuple((window if "sliding" in kind else None, count) for kind, count in attending.items())
    return Size(
        parameters=total(experts),
        active=total(used),
        layers=layers,
        hidden=hidden,
        kv=kv,
        feed_forward=used * feed_forward,
        embeddings=float(embeddings),
        vocabulary=config["vocab_size"],
        heads=heads * width,
        windows=windows,
    )


def _kinds(config: Mapping[str, Any]) -> Counter[str]:
    """How many layers there are of each kind."""
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    default = "sliding_attention" if window else "full_attention"
    return Counter(config.get("layer_types") or [default] * config["num_hidden_layers"])


def _recurrent(config: Mapping[str, Any], hidden: int, heads: int) -> int:
    """Parameters of a layer of linear attention, its short convolution left out."""
    key_heads = config.get("linear_num_key_heads") or heads
    value_heads = config.get("linear_num_value_heads") or heads
    key = config.get("linear_key_head_dim") or int(0.75 * hidden / key_heads)
    value = config.get("linear_value_head_dim") or 2 * key
    return int(hidden * (2 * key_heads * key + 3 * value_heads * value + 2 * value_heads))
