"""The comparison of staleness and sharding: which runs it asks `tulu run` for, and the table that it makes of what comes back."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import staleness
from benchmarks.staleness import Cell, cells, main, table
from tulu.config.load import load_recipe


def test_every_seed_has_every_staleness_and_every_sharding_one_run() -> None:
    made = list(cells([1, 2, 3]))
    assert len({cell.name for cell in made}) == len(made) == 17
    assert {cell.max_staleness for cell in made if cell.seed == 3 and cell.sharding} == {0, 1, 4}
    assert [cell.kind for cell in made if cell.sharding in staleness.OTHERS] == ["zero3, staleness 1", "fsdp2, staleness 1"]


def test_runs_of_a_seed_begin_with_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(command: list[str], **_: Any) -> None:
        """A `tulu run` that trains nothing."""
        overrides = [word for word in command if word.startswith("rlvr.")]
        recipe = load_recipe(command[4], overrides)
        folder = Path(command[6]) / recipe.name
        (folder / "rlvr").mkdir(parents=True, exist_ok=True)
        (folder / "sft" / "model").mkdir(parents=True, exist_ok=True)
        (folder / "sft" / "model" / "config.json").write_text('{"model_type": "olmo2"}')
        if recipe.rlvr:
            asked[recipe.name] = recipe
            lines = [json.dumps({"staleness": value, "seconds": 2.0}) for value in (0.0, 1.0)]
            (folder / "rlvr" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            (folder / "summary.json").write_text(json.dumps({"stages": [{"stage": "rlvr", "accuracy": recipe.seed / 10}]}))

    monkeypatch.setattr(staleness.subprocess, "run", run)
    # It asks git for the commit by the same function.
    monkeypatch.setattr(staleness, "environment", dict)
    assert main(["--folder", str(tmp_path), "--seeds", "2", "--steps", "5", "--out", str(tmp_path)]) == 0
    assert list(asked) == ["alone-2", "zero2-0-2", "zero2-1-2", "zero2-4-2", "zero2-4-slowed-2", "zero3-1-2", "fsdp2-1-2"]
    assert len({recipe.model for recipe in asked.values()}) == 1
    assert {(recipe.seed, recipe.rlvr.seed, recipe.rlvr.steps) for recipe in asked.values()} == {(2, 2, 5)}
    assert [recipe.rlvr.max_staleness for recipe in asked.values()] == [0, 0, 1, 4, 4, 1, 1]
    assert [recipe.rlvr.resources.engines for recipe in asked.values()] == [0, 2, 2, 2, 2, 2, 2]
    assert [recipe.rlvr.micro_batch for recipe in asked.values()] == [256, 256, 256, 256, 1, 256, 256]
    found = json.loads((tmp_path / "staleness.json").read_text())
    assert found["runs"][3] == {
        **{"kind": "zero2, staleness 4", "seed": 2, "before": None, "accuracy": 0.2},
        **{"staleness": 0.5, "seconds": 2.0},
    }


def test_the_table_has_a_row_for_each_kind() -> None:
    runs = [{"kind": Cell(1).kind, "accuracy": value, "staleness": 0.0} for value in (0.25, 0.75)]
    assert table(runs).splitlines()[2] == "| alone | 25.0, 75.0 | 50.0 | 0.00 |"
