"""What `tulu plan` knows of released models and data sets without a network: known.yaml, each number with its source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

BYTES_A_TOKEN = 4.0
"""Bytes of text in a token of the released tokenizers, which have 100,000 tokens and more: the 7.1 GB of Dolci-Instruct-SFT are
about 1.8 billion tokens."""


@dataclass(frozen=True)
class KnownModel:
    """A released model."""

    config: Mapping[str, Any]
    """The fields of its config.json that a plan needs."""
    source: str


@dataclass(frozen=True)
class KnownData:
    """A released data set."""

    rows: int
    tokens: float | None
    """Mean tokens of a conversation; None where neither they nor its bytes are known."""
    source: str
    about: bool = False
    """Whether `rows` is no exact count."""


def known_model(name: str | None) -> KnownModel | None:
    """The released model of this hub name."""
    row = _table()["models"].get(name)
    return None if row is None else KnownModel(_whole(row["config"]), row["source"])


def known_data(name: str) -> KnownData | None:
    """The released data set of this hub name."""
    row = _table()["data"].get(name)
    if row is None:
        return None
    return KnownData(row["rows"], _tokens(row), row["source"], row.get("about", False))


def known_mix(names: Sequence[str]) -> KnownData | None:
    """Data sets of which the rows are known together alone; None unless these are all of one such mix."""
    found = _table()["mixes"].get(frozenset(names))
    return None if found is None else known_data(found)


def _tokens(row: Mapping[str, Any]) -> float | None:
    if "tokens_of" in row:
        return _tokens(_table()["data"][row["tokens_of"]])
    if "tokens" in row:
        return float(row["tokens"])
    return row["bytes"] / row["rows"] / row.get("copies", 1) / BYTES_A_TOKEN if "bytes" in row else None


def _whole(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration with its `layer_pattern` repeated over all layers."""
    if "layer_pattern" not in config:
        return config
    kinds = list(islice(cycle(config["layer_pattern"]), config["num_hidden_layers"]))
    return {**config, "layer_types": kinds}


@cache
def _table() -> Mapping[str, Mapping[Any, Any]]:
    """The file, its entries by each of their names."""
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    file = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    by_name = {part: {name: row for row in file[part] for name in row["names"]} for part in ("models", "data")}
    return {**by_name, "mixes": {frozenset(row["of"]): row["as"] for row in file["mixes"]}}
