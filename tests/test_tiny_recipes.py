"""Every recipe that comes with the project trains: `tulu run NAME --tiny` in a process of its own, on this machine's CPU.

What is tried is the recipe's own algorithm on a tiny model of its own architecture, offline. Two recipes run side by side.
"""

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from tests import forked
from tests.pages import named_in_tables, unexplained
from tulu.config.job import stages_of
from tulu.config.load import built_in, load_recipe
from tulu.config.recipe_stages import stages_in
from tulu.config.tiny_section import ANSWER, BLIND
from tulu.config.yaml_text import read_yaml

RECIPES = [path.stem for path in built_in()]
ARCHITECTURES = {
    "tulu3": "llama",
    "rewardbench2": "llama",
    "olmo2": "olmo2",
    "olmoe": "olmoe",
    "olmo3": "olmo3",
    "olmo-hybrid": "olmo_hybrid",
    "quickstart": "olmo2",
}
"""The architecture of each family of recipes, by how their names begin."""
SMALLER = {
    *("data", "batch", "micro_batch", "max_length", "epochs", "steps", "released", "template_hash", "config", "row_tokens"),
    *("prompts", "samples", "max_prompt", "max_tokens", "engine", "batch_tokens", "keep_every", "start"),
    *("value.released", "value.whiten_over"),
}
"""Fields that count, measure or name something. Every other field must stay what the recipe says."""
SIDE_BY_SIDE = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
SECONDS = 600
MINUTES, CORES = 6, 2
"""What all recipes together may take, on a machine of so many cores."""


@dataclass(frozen=True)
class Trained:
    """What one command did."""

    runs: Path
    exit_code: int
    output: str

    def folder(self, name: str) -> Path:
        return self.runs / f"{name}-tiny"


def cpu_seconds() -> float:
    """Processor time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train(name: str, runs: Path) -> Trained:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(runs / "hub")}
    for launched in ("RANK", "WORLD_SIZE", "TULU_JUDGE_URL", "OPENAI_BASE_URL"):
        environment.pop(launched, None)
    words = ["run", name, "--tiny", "--runs", str(runs / "runs")]
    if SIDE_BY_SIDE == 1:
        # Beside other tests their time is not measured, and most of it would be that of imports.
        output = runs / "output"
        process = forked.command(*words, output=output, environment=environment)
        return Trained(runs / "runs", process.wait(SECONDS), output.read_text())
    command = [sys.executable, "-m", "tulu", *words]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=SECONDS, check=False)
    return Trained(runs / "runs", done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Trained]]:
    """trained(name) -> what the command of a recipe did. Those of the tests that were asked for run side by side."""
    if SIDE_BY_SIDE == 1:
        yield lambda name: train(name, tmp_path_factory.mktemp(name))
        return
    items: list[Any] = [item for item in request.session.items if getattr(item, "module", None) is request.module]
    asked = [item.callspec.params["name"] for item in items]
    begun = cpu_seconds()
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = {name: pool.submit(train, name, tmp_path_factory.mktemp(name)) for name in asked}
        yield lambda name: futures[name].result()
        whole = set(RECIPES) <= {name for name, future in futures.items() if future.done()}
        for future in futures.values():
            future.cancel()
    # Processor time, because a clock would also measure what else the machine does.
    assert not whole or (cpu_seconds() - begun) / CORES < MINUTES * 60, "--tiny of all recipes takes over 6 minutes"


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains(name: str, trained: Callable[[str], Trained]) -> None:
    result, recipe = trained(name), load_recipe(name, processes=1)
    assert result.exit_code == 0, result.output[-3000:]
    folder = result.folder(name)
    assert {entry.name for entry in result.runs.iterdir()} <= {folder.name, ".cache"}, "the recipe's own folder was written"
    first = stages_of(recipe)[0]
    before = folder / (f"{first.name}/model" if first.row.makes_model else "inputs/model")
    for stage in stages_in(dict(recipe)):
        if not stage.row.makes_folder:
            continue
        made = folder / stage.name
        assert kind_of(made / "model") == architecture(name)
        if stage.row.yields_policy:
            assert stage.row.makes_model or weights_differ(before, made / "model")
            assert recipe.evaluate is None or (folder / "evaluate" / stage.name / "results.json").is_file()
        if stage.row.trains:
            check_metrics(made / "metrics.jsonl")
            assert unchanged(section_in(made / "recipe.yaml", stage.row.name), stage.section.model_dump(mode="json")) == {}
        if stage.row.name == "rlvr":
            check_rollouts(made / "rollouts", ANSWER if recipe.base is None else BLIND * ANSWER)


def section_in(file: Path, key: str) -> dict[str, Any]:
    """The section of the stage in the resolved recipe that its run wrote."""
    section: dict[str, Any] = read_yaml(file).value[key]
    return section


def architecture(name: str) -> str:
    return next(kind for prefix, kind in ARCHITECTURES.items() if name.startswith(prefix))


def kind_of(model: Path) -> str:
    return str(json.loads((model / "config.json").read_text())["model_type"])


def check_metrics(file: Path) -> None:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        numbers = [value for value in line.values() if isinstance(value, int | float)]
        assert all(math.isfinite(value) for value in numbers)
        assert line["tokens"] > 0
        assert unexplained(line) == [], "docs/report.md and docs/rlvr.md name every figure"


def unchanged(resolved: dict[str, Any], own: dict[str, Any], above: str = "") -> dict[str, Any]:
    """The fields that are not the recipe's own, though they neither count nor measure nor name anything."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        if f"{above}{key}" in SMALLER:
            continue
        if isinstance(value, dict) and isinstance(resolved.get(key), dict):
            found |= unchanged(resolved[key], value, f"{above}{key}.")
        elif resolved.get(key) != value:
            found[f"{above}{key}"] = (value, resolved.get(key))
    return found


def weights_differ(one: Path, other: Path) -> bool:
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return any((first[name] != second[name]).any() for name in first)


def check_rollouts(folder: Path, longest: int) -> None:
    """Rewards vary, they are the graders' verdicts, and something is learned from them."""
    rows = [row for file in sorted(folder.glob("*.parquet")) for row in pyarrow.parquet.read_table(file).to_pylist()]
    assert set(rows[0]) <= named_in_tables("report.md", "column"), "docs/report.md names every column"
    graded = [row for row in rows if row["status"] == "ok"]
    # On a machine that does much else, a verdict may come too late.
    assert {row["status"] for row in rows} <= {"ok", "timeout"}
    assert len(graded) > len(rows) / 2
    assert len({row["score"] for row in graded}) > 1
    assert any(row["advantage"] for row in rows)
    assert any(row["trained"] for row in rows)
    assert all(row["tokens"] <= longest for row in rows)
