"""Models that are loaded in shards: the same weights, buffers and answers as whole ones, and the memory of a share."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoTokenizer

from tests import forked
from tests.conftest import make_tiny_model
from tests.model.ranks_spread import LARGE
from tests.model.tiny_configs import CONFIGS, build
from tulu.model.spreading import handed_over, lent, opened, own_rows, spread, spread_as_loaded, spread_rest

WORLD = 3
"""Of which a width of 32 is no multiple, and one weight is a single row."""
ALL = bool(os.environ.get("TULU_ALL_RANKS"))
NAMES = ["llama tied", "qwen3", "phi3", "olmoe", "deepseek_v3", "olmo_hybrid", "zamba2"]
"""Tied heads and biases, fused weights, experts, a buffer that is saved, recurrent layers, layers that share a weight."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spread")
    for name in CONFIGS if ALL else NAMES:
        build(name, folder / name)
    # Large enough that rows and logits, which checks compute at loading, are little beside a weight.
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 6, "vocab_size": 4096}
    make_tiny_model(folder / LARGE, "llama", **sizes)
    make_tiny_model(folder / "short", "llama")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "short")
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save_pretrained(folder / "short")
    names = [*CONFIGS] if ALL else NAMES
    forked.ranks("tests.model.ranks_spread", WORLD, folder, names, folder=folder, patience=1500 if ALL else 550)
    return folder


@pytest.fixture(params=range(WORLD))
def found(folder: Path, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a rank found."""
    answer: dict[str, Any] = json.loads((folder / f"{request.param}.json").read_text())
    return answer


def test_every_architecture_is_the_same_in_shards(found: dict[str, Any]) -> None:
    for name in CONFIGS if ALL else NAMES:
        one = found[name]
        assert one["spread"] > 0, name
        assert one["share"] < 0.55, name
        assert [one[key] for key in ("digest", "rows", "tied", "buffers")] == [True] * 4, name
        if "refused" in one:
            assert "one document at a time" in one["refused"], name
        else:
            assert one["logps"] < 1e-4, name
            assert one["digest after"], name


def test_a_weight_that_layers_share_gets_the_gradients_of_all_of_them(found: dict[str, Any]) -> None:
    assert found["shared"] < 1e-4


def test_what_changes_a_model_before_it_trains(found: dict[str, Any]) -> None:
    special = found["special"]
    assert "cannot be trained with sharding: fsdp2" in special.pop("experts")
    for name, (same_digest, off, share) in special.items():
        assert same_digest, name
        # Products in bf16 are of other sizes where a layer is alone.
        assert off < (0.1 if name == "bf16" else 1e-5), name
        assert share < 0.45, name


def test_no_process_holds_more_than_its_share_and_one_weight(found: dict[str, Any]) -> None:
    """In units of the largest weight, the embedding, of which the model has about five; the rest is for rows and activations."""
    memory = found["memory"]
    assert memory["model"] > 4.5
    assert memory["load"] < 1.3
    assert memory["digest"] < 1.2
    assert memory["save"] < 1.2
    assert memory["saved"]
    zero3 = found["zero3"]
    assert zero3["digest"] < 1.2
    assert zero3["save"] < 1.2
    assert zero3["saved"]


def test_rows_are_cut_as_torch_cuts_them() -> None:
    for length in (0, 1, 2, 5, 6, 7):
        cut = [torch.arange(length)[own_rows(length, 3, rank)].tolist() for rank in range(3)]
        chunks = [chunk.tolist() for chunk in torch.arange(length).chunk(3)]
        assert cut == [*chunks, [], [], []][:3]


def test_alone_nothing_is_spread() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 2))
    before = dict(model.named_parameters())
    with spread_as_loaded(torch.float32), opened(model), lent(model), handed_over(model):
        spread_rest(model)
        assert spread(model[0].weight) is model[0].weight
    assert dict(model.named_parameters()) == before
