"""RLVR with dropout in its adapters: what the engine sampled is compared with the policy as it is without dropout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_rlvr_reward_model import Place

LORA = {"rank": 4, "alpha": 8, "dropout": 0.5}


@pytest.mark.parametrize("changes", [{}, {"beta": 0.1}, {"updates": 2}])
def test_only_what_is_trained_drops_out(changes: dict[str, Any], tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    result = place.call(verifier=place.verifier, lora=LORA, steps=8, learning_rate=3e-2, **changes)
    assert result.exit_code == 0, result.output
    metrics = [json.loads(line) for line in (place.stage / "metrics.jsonl").read_text().splitlines()]
    assert all(line["mismatch"] < 1e-4 for line in metrics), "the engine samples without dropout, and so are its weights checked"
    assert any(line["gradient_norm"] > 0 for line in metrics)
    ratios = [line["ratio"] for line in metrics]
    assert any(abs(ratio - 1) > 1e-4 for ratio in ratios), "the trained log-probs are those under dropout"
