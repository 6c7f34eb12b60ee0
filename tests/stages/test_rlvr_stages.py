"""Two RLVR stages in one recipe, trained in small: each with its folder, start, data and line in the summary."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from tests.stages.test_pipeline import SMALL, stamps
from tulu.cli import app
from tulu.config.load import find_recipe
from tulu.config.yaml_text import dump_yaml, read_yaml

STEPS = {"warm": 2, "sums": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart without DPO and reward model, and with two RLVR stages: the second starts from a step of the first."""
    raw = read_yaml(find_recipe("quickstart")).value
    del raw["dpo"], raw["rm"]
    # A model of three steps solves nothing, but some of its answers stop and others do not, so that rewards differ.
    section = raw["rlvr"] | {"refill": False, "no_stop_score": -1.0, "stop": list("0123456789 abcdefghij")}
    warm = {"name": "warm", **section, "keep_every": 1}
    sums = {"name": "sums", **section, "start": "warm@step-1", "template": "zephyr", "data": {"name": "sums:train", "count": 8}}
    file = tmp_path_factory.mktemp("recipe") / "two.yaml"
    file.write_text(dump_yaml({**raw, "rlvr": [warm, sums]}))
    return file


def call(command: str, recipe: Path, runs: Path, *more: str) -> str:
    small = {key: value for key, value in SMALL.items() if not key.startswith(("dpo.", "rm.", "rlvr."))}
    of_rlvr = {key.removeprefix("rlvr."): value for key, value in SMALL.items() if key.startswith("rlvr.")}
    for name, steps in STEPS.items():
        small |= {f"rlvr.{name}.{key}": value for key, value in {**of_rlvr, "data.count": 8, "steps": steps}.items()}
    arguments = [command, str(recipe), *(f"{key}={value}" for key, value in small.items()), *more, "--runs", str(runs)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder of the run, what was printed)."""
    runs = tmp_path_factory.mktemp("stages")
    return runs / "small", call("run", recipe, runs)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def facts(folder: Path, stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(manifest, recipe) of a stage."""
    here = folder / stage
    return json.loads((here / "manifest.json").read_text()), yaml.safe_load((here / "recipe.yaml").read_text())


def test_each_has_its_folder_its_steps_and_the_start_that_it_names(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    for name, steps in STEPS.items():
        manifest, recipe = facts(folder, name)
        assert (manifest["finished"], manifest["steps"]) == (True, steps)
        assert (recipe["rlvr"]["name"], recipe["rlvr"]["steps"]) == (name, steps)
        assert len((folder / name / "metrics.jsonl").read_text().splitlines()) == steps
    assert facts(folder, "warm")[1]["start"] == str(folder / "sft" / "model")
    assert facts(folder, "sums")[1]["start"] == str(folder / "warm" / "models" / "step-000001")
    assert not (folder / "rlvr").exists()
    assert not list(folder.rglob(".partial-*"))


def test_what_was_kept_on_the_way_are_the_weights_of_that_step(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    kept = {step: weights(folder / "warm" / "models" / f"step-00000{step}") for step in (1, 2)}
    last, start = weights(folder / "warm" / "model"), weights(folder / "sft" / "model")
    assert kept[1].keys() == last.keys()
    assert all((kept[2][name] == last[name]).all() for name in last), "the last step's are those of model/"
    assert any((kept[1][name] != start[name]).any() for name in last)
    assert any((kept[2][name] != kept[1][name]).any() for name in last)


def test_each_is_evaluated_and_has_a_line_in_the_summary(finished: tuple[Path, str]) -> None:
    folder, output = finished
    content = json.loads((folder / "summary.json").read_text())
    assert [stage["stage"] for stage in content["stages"]] == ["base", "sft", "warm", "sums"]
    assert sorted(path.name for path in (folder / "evaluate").iterdir()) == ["base", "sft", "sums", "warm"]
    assert (folder / "summary.png").read_bytes().startswith(b"\x89PNG\r\n")
    for word in ("warm", "sums", "held-out accuracy on sums"):
        assert word in output


def test_again_does_nothing_and_the_command_says_which_one_it_ran(finished: tuple[Path, str], recipe: Path) -> None:
    folder, _ = finished
    files = stamps(folder)
    call("run", recipe, folder.parent)
    told = call("rlvr", recipe, folder.parent)
    assert f"rlvr.sums: starts from {folder}/warm/models/step-000001" in told
    assert f"rlvr.sums: finished, {folder}/sums/model" in told
    changed = {name for name, stamp in stamps(folder).items() if files.get(name) != stamp}
    assert changed <= {"summary.json", "summary.png", "report.html"}


def test_a_start_that_was_trained_again_is_another_one(finished: tuple[Path, str], recipe: Path) -> None:
    folder, _ = finished
    model = folder / "warm" / "models" / "step-000001" / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    arguments = ["rlvr", str(recipe), "--stage", "sums", "--fresh", "--runs", str(folder.parent), "name=small"]
    result = CliRunner().invoke(app, arguments)
    model.write_bytes(content)
    assert result.exit_code == 2
    assert "step-000001: is damaged: model.safetensors is not what was written" in result.output
