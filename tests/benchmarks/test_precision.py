"""The comparison of precisions: what it asks `tulu run` for, and the table that it makes of what comes back."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import precision
from benchmarks.precision import TRAINED, main, table
from tulu.config.load import load_recipe


def test_every_seed_is_trained_in_both_precisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run(command: list[str], **_: Any) -> None:
        """A `tulu run` that trains nothing: each stage is as right as its seed says."""
        recipe = load_recipe(command[4], command[7:])
        sections = [getattr(recipe, stage) for stage in TRAINED]
        assert recipe.rm is None
        assert {section.precision for section in sections} == {recipe.name.split("-")[0]}
        assert {section.seed for section in sections} == {recipe.seed}
        assert recipe.sft is not None
        assert recipe.sft.batch == 16
        asked.append(recipe.name)
        folder = Path(command[6]) / recipe.name
        folder.mkdir(parents=True)
        stages = [{"stage": stage, "accuracy": recipe.seed / 10} for stage in TRAINED]
        (folder / "summary.json").write_text(json.dumps({"stages": stages}))

    monkeypatch.setattr(precision.subprocess, "run", run)
    assert main(["--folder", str(tmp_path), "--seeds", "1", "4", "--set", "sft.batch=16"]) == 0
    assert asked == ["fp32-1", "bf16-1", "fp32-4", "bf16-4"]
    found = json.loads((tmp_path / "precision.json").read_text())
    assert found["bf16"] == [dict.fromkeys(TRAINED, 0.1), dict.fromkeys(TRAINED, 0.4)]


def test_the_table_has_every_seed_and_the_mean() -> None:
    lines = table({"fp32": [{"sft": 0.25}, {"sft": 0.75}], "bf16": [{"sft": 0.5}, {"sft": 0.125}]}).splitlines()
    assert lines[2:] == ["| sft | `fp32` | 25.0, 75.0 | 50.0 |", "| sft | `bf16` | 50.0, 12.5 | 31.2 |"]
