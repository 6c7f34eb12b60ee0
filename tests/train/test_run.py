"""The run directory: what it compares, what it forgets, and that nothing in it is ever half of something."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from tulu.config.job import Job
from tulu.config.schema import Recipe
from tulu.errors import CheckpointError, RecipeError, ResumeError, TrainingError
from tulu.model.parallel import Parallel
from tulu.train.begun import job_recipe
from tulu.train.model_files import model_faults
from tulu.train.run import Run

SFT = {"data": "rows.jsonl", "max_length": 64, "batch": 4, "epochs": 1, "learning_rate": 1e-3, "precision": "fp32"}


def job(folder: Path, fresh: bool = False, start: str | None = "model", **fields: Any) -> Job:
    recipe = Recipe.model_validate({"name": "tiny", "model": "model", "sft": {**SFT, **fields}})
    return Job(recipe, "sft", folder / "tiny" / "sft", start, fresh)


def opened(folder: Path, **fields: Any) -> Run:
    """A run with a tiny model under training, as a learner would have it."""
    given = job(folder, **fields)
    section = given.recipe.sft
    assert section is not None
    run = Run(given, Parallel(section))
    model = torch.nn.Linear(2, 2)
    run.parallel.prepare(model, torch.optim.AdamW(model.parameters()))
    return run


def test_the_recipe_is_written_and_compared(tmp_path: Path) -> None:
    run = opened(tmp_path)
    assert yaml.safe_load((run.path / "recipe.yaml").read_text()) == job_recipe(run.job)
    run.pin(data="as it is")
    opened(tmp_path)
    with pytest.raises(ResumeError, match=r"(?s)began with another recipe:\s+sft\.batch: 4 -> 8\n.*--fresh") as raised:
        opened(tmp_path, batch=8)
    assert "learning_rate" not in str(raised.value), "only what changed"
    with pytest.raises(CheckpointError, match='start: "model" -> "other"'):
        opened(tmp_path, start="other")


def test_a_run_that_never_began_takes_a_corrected_recipe(tmp_path: Path) -> None:
    opened(tmp_path)
    run = opened(tmp_path, batch=8)
    assert yaml.safe_load((run.path / "recipe.yaml").read_text())["sft"]["batch"] == 8
    run.pin(data="as it is")
    with pytest.raises(CheckpointError, match=r"sft\.batch: 8 -> 4"):
        opened(tmp_path)


def test_other_sections_may_change(tmp_path: Path) -> None:
    run = opened(tmp_path)
    other = {**run.job.recipe.model_dump(), "evaluate": {"task": "sums"}}
    Run(Job(Recipe.model_validate(other), "sft", run.path, "model"), run.parallel)


def test_fresh_leaves_nothing(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"loss": 1.0})
    fresh = opened(tmp_path, batch=8, fresh=True)
    assert [path.name for path in fresh.path.iterdir()] == ["recipe.yaml"]


def test_a_stage_without_a_start_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"sft: nothing to start from; set model, or sft\.start"):
        _ = opened(tmp_path, start=None).start


def test_pinned_facts_are_kept_and_compared(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="d1", start="s1")
    run.pin(data="d1", template="t1")
    assert run.manifest()["pinned"] == {"data": "d1", "start": "s1", "template": "t1", "processes": 1}
    with pytest.raises(CheckpointError, match=r'(?s)has changed:\s+data: "d1" -> "d2".*Restore it') as raised:
        run.pin(data="d2", start="s1")
    assert "start:" not in str(raised.value)
    assert run.manifest()["pinned"]["data"] == "d1"
    assert {"versions", "hardware", "command", "commit"} <= run.manifest().keys()


def test_what_came_after_the_last_checkpoint_is_forgotten(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="as it is")
    for step in (1, 2, 3):
        run.log(step, {"loss": float(step)})
        run.journal("trained", step=step, rows=[f"row:{step}"])
        run.rollouts(step, [{"id": "row", "reward": 1.0}])
        if step == 2:
            run.save(step)
    # The crash cut the last line, and a stray line carries no step.
    for name in ("metrics.jsonl", "journal"):
        with (run.path / name).open("a") as file:
            file.write('{"event": "trained"}\n{"step": 2, "lo')
    again = opened(tmp_path)
    assert (again.resume(), again.step) == ({}, 2)
    for name in ("metrics.jsonl", "journal"):
        assert [json.loads(line)["step"] for line in (again.path / name).read_text().splitlines()] == [1, 2]
    assert sorted(file.name for file in (again.path / "rollouts").iterdir()) == ["step-000001.parquet", "step-000002.parquet"]
    again.log(3, {"loss": 3.0})
    assert (again.path / "metrics.jsonl").read_text().endswith('{"step": 3, "loss": 3.0}\n')


def test_without_a_checkpoint_everything_is_forgotten(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.log(1, {"loss": 1.0})
    again = opened(tmp_path)
    assert (again.resume(), again.step) == ({}, 0)
    assert (again.path / "metrics.jsonl").read_text() == ""


def test_a_checkpoint_gives_back_what_it_was_given(tmp_path: Path) -> None:
    run = opened(tmp_path, keep_checkpoints=1)
    run.pin(data="as it is")
    run.save(1, drawn=4)
    run.save(2, drawn=8)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-000002"]
    again = opened(tmp_path, keep_checkpoints=1)
    assert (again.resume(), again.step) == ({"drawn": 8}, 2)
    assert again.elapsed() >= json.loads((run.path / "checkpoints" / "step-000002" / "state.json").read_text())["seconds"]


def test_leftovers_of_a_session_that_died_are_cleared(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="as it is")
    run.save(1)
    half = run.path / "checkpoints" / ".partial-step-000002"
    half.mkdir()
    (half / "model.bin").write_text("half")
    (run.path / ".partial-model").mkdir()
    (run.path / ".partial-recipe.yaml").write_text("na")
    again = opened(tmp_path)
    assert not list(run.path.rglob(".partial-*"))
    again.resume()
    assert again.step == 1


def test_a_model_is_whole_or_absent_and_finished_comes_last(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.step = run.trained = 3

    def broken(folder: Path, write: bool) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise CheckpointError("no room")

    with pytest.raises(CheckpointError, match=r"(?s)model: the model could not be written .*no room"):
        run.finish(broken)
    assert not run.finished
    assert not list(run.path.glob("*model*"))

    def whole(folder: Path, write: bool) -> None:
        assert write
        folder.mkdir()
        (folder / "config.json").write_text("{}")

    assert run.finish(whole, rows=7) == run.path / "model"
    assert (run.path / "model" / "config.json").read_text() == "{}"
    assert {key: run.manifest()[key] for key in ("finished", "steps", "rows")} == {"finished": True, "steps": 3, "rows": 7}
    assert opened(tmp_path).finished
    (run.path / "model").rename(tmp_path / "elsewhere")
    assert not opened(tmp_path).finished, "the manifest alone is no model"


def written(tmp_path: Path) -> Run:
    """A run that has finished, with a model of two files."""

    def save(folder: Path, write: bool) -> None:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        save_file({"weight": torch.arange(9.0)}, folder / "model.safetensors")

    run = opened(tmp_path)
    run.finish(save)
    return run


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda model: flip(model / "model.safetensors"), "model.safetensors is not what was written"),
        (lambda model: os.truncate(model / "model.safetensors", 50), "model.safetensors has 50 bytes of 108"),
        (lambda model: (model / "config.json").unlink(), "config.json cannot be read (No such file or directory)"),
    ],
    ids=["flipped", "cut", "gone"],
)
def test_a_finished_model_that_was_damaged_is_written_again(
    spoil: Callable[[Path], None], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = written(tmp_path)
    assert opened(tmp_path).finished
    spoil(run.model_folder)
    assert not opened(tmp_path).finished
    assert f"{run.model_folder} is damaged: {message}" in caplog.text
    assert model_faults(run.model_folder) == [message]


def test_settings_of_a_finished_model_may_be_edited(tmp_path: Path) -> None:
    run = written(tmp_path)
    (run.model_folder / "config.json").write_text('{"edited": true}')
    assert opened(tmp_path).finished
    assert model_faults(tmp_path / "a folder that no run has written" / "model") == []


@pytest.mark.parametrize("name", ["manifest.json", "recipe.yaml"])
def test_what_a_run_began_with_must_be_readable(name: str, tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="d1")
    (run.path / name).write_text('{"half')
    with pytest.raises(ResumeError, match=rf"(?s){name}: is damaged, .*Restore it from a copy, or run its stage with --fresh"):
        opened(tmp_path)


def test_due(tmp_path: Path) -> None:
    run = opened(tmp_path, save_every=3)
    assert [step for step in range(1, 8) if run.due(step, step == 7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if opened(tmp_path / "b").due(step, step == 7)] == [7]


# -- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_reach_no_checkpoint(tmp_path: Path, bad: float) -> None:
    run = opened(tmp_path)
    run.save(1)
    assert run.parallel.module is not None
    torch.nn.init.constant_(run.parallel.module.get_parameter("bias"), bad)
    run.step = 2
    with (
        pytest.raises(
            TrainingError, match=r"sft, after 2 steps: the weights are not finite and are not saved: bias\nstep-000001"
        ),
        run.interruptible(),
    ):
        run.end_step(last=True)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-000001"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_model_that_is_not_finite_is_not_written(tmp_path: Path, dtype: torch.dtype) -> None:
    """Half precision ends at 65,504, so that finite weights may become infinite as they are saved."""
    run = opened(tmp_path)
    run.step = run.trained = 3

    def saving(value: float) -> Callable[[Path, bool], None]:
        def save(folder: Path, write: bool) -> None:
            folder.mkdir()
            save_file({"good": torch.ones(3, dtype=dtype), "bad": torch.tensor([1.0, value]).to(dtype)}, folder / "m.safetensors")

        return save

    for value in (math.nan, -math.inf, *([70_000.0] if dtype == torch.float16 else [])):
        with pytest.raises(TrainingError, match=r"(?s)model: not written, its numbers are not finite: bad\n.*learning rate"):
            run.finish(saving(value))
        assert not list(run.path.glob("*model*"))
        assert not run.finished
    assert run.finish(saving(65_504.0)).is_dir()
    assert run.finished
