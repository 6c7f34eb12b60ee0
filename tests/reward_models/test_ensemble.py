"""Ensembles: weights that find the good model, alignment, and a gain measured where nothing was learned."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tulu.errors import DataError, RecipeError
from tulu.reward_models.ensemble import combine, learn
from tulu.reward_models.items import Scored
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.rewardbench import run


def model(noise: float, seed: int, count: int = 400, scale: float = 1.0) -> list[Scored]:
    """Right answers are worth 1 more; a model sees them through noise of its own."""
    draw = random.Random(seed)
    return [Scored(str(k), "x", (scale * (1 + draw.gauss(0, noise)),), (scale * draw.gauss(0, noise),)) for k in range(count)]


def test_independent_models_are_better_together() -> None:
    models = {"good": model(1.0, 1), "other": model(1.0, 2, scale=1000.0), "noise": model(50.0, 3)}
    found = combine(models, "free", seed=0)
    assert sum(found.weights.values()) == pytest.approx(1)
    assert min(found.weights.values()) >= 0
    assert found.weights["noise"] < 0.1
    assert found.weights["good"] == pytest.approx(found.weights["other"], abs=0.15)
    scores = {name: summary.score or 0.0 for name, summary in {**found.combined, **found.singles}.items()}
    assert scores["learned"] > max(scores["good"], scores["other"])
    assert found.best in ("good", "other")
    assert found.gain == pytest.approx(scores["learned"] - scores[found.best])
    assert found.gain_interval[0] <= found.gain <= found.gain_interval[1]
    assert found.learned_on + found.reported_on == 400
    assert 150 < found.learned_on < 250


def test_a_model_that_is_always_wrong_gets_nothing() -> None:
    upside_down = [replace(item, chosen=item.rejected, rejected=item.chosen) for item in model(0.5, 1)]
    found = combine({"right": model(0.5, 2), "wrong": upside_down}, "free", seed=0)
    assert found.weights == pytest.approx({"right": 1.0, "wrong": 0.0})
    assert found.gain == 0


def test_weights_minimise_the_loss() -> None:
    rows = [list(pair) for pair in zip(model(1.0, 4, 60), model(2.0, 5, 60), strict=True)]
    deltas = np.array([[one.chosen[0] - one.rejected[0] for one in row] for row in rows])

    def loss(weights: tuple[float, float]) -> float:
        return float(np.log1p(np.exp(-deltas @ np.array(weights))).mean() + 1e-3 * np.square(weights).sum())

    grid = [(a / 50, b / 50) for a in range(101) for b in range(101)]
    best = min(grid, key=loss)
    assert learn(rows) == pytest.approx(np.array(best) / sum(best), abs=0.02)


def test_ties_prompts_stay_together() -> None:
    rows = [
        row
        for k in range(30)
        for row in (
            Scored(f"ref:{k}", "Ties", (1.0,), (0.0,)),
            Scored(f"tied:{k}", "Ties", (1.0, 1.0), (0.0, 0.5)),
        )
    ]
    found = combine({"a": rows, "b": rows}, "v2", seed=0)
    assert found.combined["learned"].score == pytest.approx(1.01)
    assert found.reported_on % 2 == 0


def test_missing_scores_stay_missing() -> None:
    holed = model(1.0, 1)
    holed[:50] = [replace(item, chosen=(math.nan,)) for item in holed[:50]]
    found = combine({"a": holed, "b": model(1.0, 2)}, "free", seed=0)
    assert found.combined["learned"].missing == found.singles["a"].missing > 0


def write(path: Path, items: list[Scored]) -> Path:
    rows = [{"id": item.id, "subset": item.subset, "chosen": item.chosen, "rejected": item.rejected} for item in items]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.jsonl", model(1.0, 1)), write(tmp_path / "b.jsonl", model(1.0, 2))
    run(None, "free", first, RewardBenchOptions(ensemble=(second,), json_output=True))
    found = json.loads(capsys.readouterr().out)
    assert set(found["weights"]) == {str(first), str(second)}
    assert found["combined"]["learned"]["score"] > found["singles"][found["best"]]["score"]
    run(None, "free", first, RewardBenchOptions(ensemble=(second,)))
    assert "points of mean credit" in capsys.readouterr().out
    with pytest.raises(DataError, match="named twice"):
        run(None, "free", first, RewardBenchOptions(ensemble=(first,)))
    with pytest.raises(RecipeError, match="combines scores files"):
        run("model", "free", None, RewardBenchOptions(ensemble=(first,)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (model(1.0, 2, 399), "have not scored the same items: '399' of 'x' is in one"),
        ([*model(1.0, 2, 399), Scored("399", "x", (1.0, 2.0), (0.0,))], "'399' has other answers"),
    ],
)
def test_models_must_have_scored_the_same_items(other: list[Scored], message: str) -> None:
    with pytest.raises(DataError, match=message):
        combine({"a": model(1.0, 1), "b": other}, "free", seed=0)


def test_too_few() -> None:
    with pytest.raises(DataError, match="two models or more"):
        combine({"a": model(1.0, 1)}, "free", seed=0)
    with pytest.raises(DataError, match="appear twice"):
        combine({"a": [*model(1.0, 1, 4), *model(1.0, 1, 4)], "b": model(1.0, 2, 4)}, "free", seed=0)
