"""What `--tiny` knows of models and data sets that it does not read: their architectures, and what their rows look like."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tulu.config.known import known_model
from tulu.config.locate import HUB_NAME
from tulu.config.model_folder import read_config
from tulu.config.sizes import local_config
from tulu.errors import RecipeError

DEFAULT_TEMPLATE = "tulu"
"""What stands for the template of a tokenizer that is not here."""
_MOST: Mapping[str, int] = {
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 64,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 512,
    "sliding_window": 64,
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
}
"""The largest value of each size in a tiny model's configuration."""
_HEAD, _LAYERS = 16, 2


@dataclass(frozen=True)
class Architecture:
    """The configuration of a model that a recipe names, and the template that stands for its tokenizer's own."""

    config: Mapping[str, Any]
    """Fields of config.json, `model_type` among them."""
    template: str = DEFAULT_TEMPLATE
    """The name of a chat template, or its text."""


@dataclass(frozen=True)
class ProblemForm:
    """What the rows of one RLVR data set look like."""

    verifiers: tuple[str, ...]
    """Who grades the rows, each its share of them; ifeval_func is ifeval with a ground truth that names one function."""
    prompt: str = "messages"
    """The column of the prompt."""
    lists: bool = False
    """Whether the names of verifiers and the ground truths stand in lists."""
    known: bool = True
    """Whether this is how the data set is known to be, or a guess."""


def architecture_of(name: str) -> Architecture:
    """The architecture of a model folder, of a model in the hub's cache, or of a released model. Raises RecipeError."""
    if Path(name).is_dir():
        config = read_config(Path(name))
        if config is not None and "model_type" in config:
            return Architecture(config, _own_template(Path(name)) or DEFAULT_TEMPLATE)
    entry = _entry("models", name)
    cached = _cached_config(name)
    if entry is None and cached is None:
        raise RecipeError(
            f"--tiny: the architecture of {name} is not known without the hub; download its config.json once "
            f"(hf download {name} config.json), or name a folder that holds it, as model=FOLDER"
        )
    if entry is None:
        return Architecture(cached or {})
    return Architecture(cached or {**entry["config"], **_known_sizes(name)}, entry["template"])


def problem_form(name: str) -> ProblemForm:
    """What the rows of an RLVR data set look like; sums of gsm8k where nothing is known of it."""
    entry = _entry("problems", name)
    if entry is None:
        return ProblemForm(("gsm8k",), known=False)
    return ProblemForm(tuple(entry["verifiers"]), entry.get("prompt", "messages"), entry.get("lists", False))


def tiny_config(own: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the same architecture with small sizes.

    Whatever is no size is kept: how many query heads share a key head, kinds of layers, kinds of positions, tied embeddings.
    """
    small = {key: _smaller(key, value) for key, value in own.items()}
    heads = small.get("num_attention_heads")
    if heads and own.get("hidden_size", 0) > heads * _HEAD:
        small["hidden_size"] = heads * _HEAD
        # Latent attention has heads of two parts, whose sizes are kept.
        if own.get("head_dim") and "qk_rope_head_dim" not in own:
            small["head_dim"] = _HEAD
    if heads and own.get("num_key_value_heads"):
        shared = own["num_attention_heads"] // own["num_key_value_heads"]
        small["num_key_value_heads"] = max(1, heads // min(shared, heads))
    if "num_hidden_layers" in own:
        kinds = own.get("layer_types")
        small["num_hidden_layers"] = _enough_layers(kinds) if kinds else min(own["num_hidden_layers"], _LAYERS)
        if kinds:
            small["layer_types"] = list(kinds[: small["num_hidden_layers"]])
    return small


def _smaller(key: str, value: Any) -> Any:
    """A field's value, and those of the fields in it, at most as large as that of a tiny model."""
    if isinstance(value, Mapping):
        return {inner: _smaller(inner, each) for inner, each in value.items()}
    return min(value, _MOST[key]) if key in _MOST and isinstance(value, int) else value


def _enough_layers(kinds: Sequence[str]) -> int:
    """The fewest first layers that hold every kind of layer."""
    return max(_LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds)))


def _entry(part: str, name: str) -> Any:
    """The first entry of a part of the table whose patterns fit a name."""
    return next((entry for entry in _table()[part] if any(fnmatchcase(name, pattern) for pattern in entry["names"])), None)


@cache
def _table() -> Mapping[str, list[dict[str, Any]]]:
    return dict(YAML(typ="safe", pure=True).load(Path(__file__).with_name("made_up.yaml")))


def _known_sizes(name: str) -> Mapping[str, Any]:
    """The sizes of a released model; empty where they are not known."""
    known = known_model(name)
    return {} if known is None else {key: value for key, value in known.config.items() if key != "layer_pattern"}


def _cached_config(name: str) -> Mapping[str, Any] | None:
    """The configuration of a model in the hub's cache."""
    file = local_config(name) if HUB_NAME.match(name) else None
    return None if file is None else read_config(file.parent)


def _own_template(folder: Path) -> str | None:
    """The chat template that lies in a model's folder, the default one where there are several."""
    return next(_templates(folder), None)


def _templates(folder: Path) -> Iterator[str]:
    if (file := folder / "chat_template.jinja").is_file():
        yield file.read_text(encoding="utf-8")
    try:
        own = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return
    if isinstance(own, list):
        own = next((entry.get("template") for entry in own if isinstance(entry, dict) and entry.get("name") == "default"), None)
    if isinstance(own, str):
        yield own
