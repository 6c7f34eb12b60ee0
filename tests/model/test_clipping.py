"""Gradients of policy and value model that are clipped apart: numbers by hand, in one process and in two, however sharded."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.model.ranks_clip import SHARDING, attempt


def weight_after(gradient: float) -> float:
    """A weight of 1 after AdamW's first step at a rate of 0.1 with an epsilon of 1."""
    return 1 - 0.1 * gradient / (gradient + 1)


def check(found: dict[str, Any]) -> None:
    # Eight equal entries: a norm of 0.5 leaves 0.5 / √8 to each, 0.1768, and 0.25 leaves 0.0884.
    assert found["policy"] == pytest.approx([weight_after(0.5 / math.sqrt(8))] * 8, abs=1e-6)
    assert found["value"] == pytest.approx([weight_after(0.25 / math.sqrt(8))] * 8, abs=1e-6)
    assert found["norm"] == pytest.approx(math.sqrt(8 * (1.5**2 + 4.5**2)))


def test_policy_and_value_model_are_clipped_apart() -> None:
    check(attempt(0.25))


def test_otherwise_they_are_clipped_together() -> None:
    # A norm of 0.5 for both together: a tenth of the squares is the policy's.
    found = attempt(None)
    assert found["policy"] == pytest.approx([weight_after(0.5 / math.sqrt(80))] * 8, abs=1e-6)
    assert found["value"] == pytest.approx([weight_after(1.5 / math.sqrt(80))] * 8, abs=1e-6)


def test_what_is_under_its_norm_stays() -> None:
    # Only the policy's 1.5 · √8 = 4.24 is over its norm; the value model's 12.7 is under 20.
    found = attempt(20.0)
    assert found["policy"] == pytest.approx([weight_after(0.5 / math.sqrt(8))] * 8, abs=1e-6)
    assert found["value"] == pytest.approx([weight_after(4.5)] * 8, abs=1e-6)


def test_two_ranks_clip_apart_however_they_are_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tmp_path / "built"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(built))
    forked.ranks("tests.model.ranks_clip", 2, tmp_path, folder=tmp_path, patience=240)
    assert not built.exists(), "DeepSpeed compiled something, which takes a minute on a new machine"
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        # Every rank has the exact means, also one that had no row and knew of fewer metrics: 2 · 8 · 4 is the loss of row 2.
        metrics = found.pop("without rows")
        assert (metrics["nll"], metrics["number"], metrics["loss"]) == (64.0, 2.0, 64.0)
        assert len(found) == 2 * len(SHARDING)
        for one in found.values():
            check(one)
