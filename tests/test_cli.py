"""The command line: light, one boundary for every failure, and the stages it calls."""

import errno
import io
import logging
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tulu.cli import app
from tulu.commands.boundary import StderrHandler
from tulu.config.job import Job
from tulu.config.load import load_recipe
from tulu.config.stages import STAGES as STAGE_TABLE
from tulu.errors import CheckpointError, DataError, RecipeError

STAGES = ["base", "sft", "dpo", "rm", "rlvr"]
COMMANDS = ["sft", "dpo", "rm", "rlvr", "run", "evaluate", "rewardbench", "verify", "sample", "data", "recipes", "plan", "report"]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Stages that leave a model folder and do nothing else; returns the jobs they were given, in order."""
    jobs: list[Job] = []

    def run(job: Job) -> Path:
        jobs.append(job)
        (job.folder / "model").mkdir(parents=True, exist_ok=True)
        (job.folder / "recipe.yaml").write_text(
            f"model: {job.recipe.model}\nrevision: {job.recipe.revision}\n".replace("None", "null")
        )
        return job.folder / "model"

    fake_stages(monkeypatch, run)
    return jobs


def fake_stages(monkeypatch: pytest.MonkeyPatch, run: Callable[[Job], Any]) -> None:
    for stage in STAGE_TABLE.values():
        name = stage.runner.rpartition(".")[0]
        module = ModuleType(name)
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)


def children_seconds() -> float:
    """Seconds in which processes that ended had a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    seconds, waited = [], []
    for _ in range(3):
        began, work = time.perf_counter(), children_seconds()
        done = subprocess.run([sys.executable, "-m", "tulu", "--help"], capture_output=True, text=True, check=True)
        seconds.append(children_seconds() - work)
        waited.append(time.perf_counter() - began)
    assert all(command in done.stdout for command in COMMANDS)
    # Half a second alone; other tests share the cores, which slows down its work too. It waits for nothing but them.
    assert statistics.median(seconds) < (0.5 if "PYTEST_XDIST_WORKER" not in os.environ else 1.5)
    assert min(waited) < 15
    code = "import sys, tulu.cli; print(sorted({'torch', 'transformers', 'pydantic', 'yaml', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("command", [*COMMANDS, "base"])
def test_every_command_has_help(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_dry_run_prints_recipe_and_batch_and_runs_nothing(stage: str, tmp_path: Path, stages: list[Job]) -> None:
    result = call(stage, "quickstart", f"{stage}.seed=77", "--dry-run", "--runs", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "seed: 77" in result.stdout
    assert "global batch" in result.stdout
    assert stages == []
    assert list(tmp_path.iterdir()) == []


def test_dry_run_states_the_batch_as_an_equation() -> None:
    result = call("sft", "olmo2-instruct", "--dry-run")
    assert "global batch 128 = 1 process × micro-batch 8 × accumulation 16" in result.stdout
    assert "learning_rate: 1.0e-05" in result.stdout
    assert "start       allenai/OLMo-2-1124-7B " in result.stdout


def test_a_stage_runs_what_it_has_nothing_else_to_start_from(tmp_path: Path, stages: list[Job]) -> None:
    result = call("rlvr", "rlvr.steps=3", "--verifier", "math", "--runs", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert [job.stage for job in stages] == ["base", "sft", "dpo", "rlvr"]
    assert [job.start for job in stages] == [None, *(str(tmp_path / "quickstart" / stage / "model") for stage in STAGES[:3])]
    rlvr = stages[-1].section
    assert (rlvr.verifier, rlvr.steps) == ("math", 3)
    assert stages[-1].folder == tmp_path / "quickstart" / "rlvr-math", "beside the quickstart's own"
    assert "rlvr has no model to start from yet: running base first" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (RecipeError("a: wrong; cure"), 2, "a: wrong; cure"),
        (DataError("rows.jsonl:17: broken JSON"), 2, "rows.jsonl:17: broken JSON"),
        (CheckpointError("runs/x: cannot be read\nRemove it"), 1, "Remove it"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again: what can be resumed is"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x/model"),
            1,
            "runs/x/model: No space left on device; free some space",
        ),
        (
            OSError(errno.EFBIG, "File too large", "runs/x/journal"),
            1,
            "runs/x/journal: File too large; the limit of a file's size",
        ),
        (
            OSError(errno.EIO, "Input/output error", "runs/x/journal"),
            1,
            "runs/x/journal: Input/output error; the disk or its server",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 1, "runs: Permission denied; make it writable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_failures_become_one_message_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException, code: int, expected: str
) -> None:
    def fail(job: Job) -> None:
        raise error

    fake_stages(monkeypatch, fail)
    result = call("base", "quickstart", "--runs", str(tmp_path))
    assert result.exit_code == code
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_a_run_folder_that_vanishes_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def vanish(job: Job) -> None:
        job.folder.mkdir(parents=True)
        shutil.rmtree(tmp_path)
        (job.folder / "metrics.jsonl").read_text()

    fake_stages(monkeypatch, vanish)
    result = call("base", "quickstart", "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 1
    metrics = tmp_path / "runs" / "quickstart" / "base" / "metrics.jsonl"
    assert f"{metrics}: No such file or directory; it vanished while the command ran" in result.stderr.replace("\n", "")


def test_the_log_goes_to_the_stderr_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    call("recipes")
    log = logging.getLogger("tulu")
    assert [type(handler) for handler in log.handlers] == [StderrHandler]
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    log.info("one")
    first.close()
    monkeypatch.setattr(sys, "stderr", second)
    log.info("two")
    assert second.getvalue() == "two\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(job: Job) -> None:
        raise ZeroDivisionError("a bug")

    fake_stages(monkeypatch, fail)
    assert isinstance(call("base", "quickstart", "--runs", str(tmp_path)).exception, ZeroDivisionError)


def test_one_process_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "no such recipe" in call("sft", "nowhere").stderr
    monkeypatch.setenv("RANK", "1")
    result = call("sft", "nowhere")
    assert (result.exit_code, result.output) == (2, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sft"], "Missing argument 'RECIPE'"),
        (["sft", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
        (["sft", "quickstart", "sft.bacth=3"], "did you mean batch?"),
        (["evaluate", "model"], "needs --task NAME"),
        (["plan", "quickstart", "--price", "2"], "--price needs --gpu"),
        (["rewardbench"], "give a model"),
        (["verify", "gsm8k"], "Missing option '--in'"),
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str], expected: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.output


def test_recipes_are_listed_with_their_stages() -> None:
    result = call("recipes")
    assert "quickstart" in result.stdout
    assert "base sft dpo rm rlvr evaluate" in result.stdout


def test_what_a_dry_run_prints_is_the_recipe_again(tmp_path: Path) -> None:
    printed = call("sft", "olmo2-instruct", "--dry-run").stdout
    (tmp_path / "again.yaml").write_text(printed[: printed.index("\ntulu sft") + 1])
    again, recipe = (load_recipe(name, processes=1) for name in (str(tmp_path / "again.yaml"), "olmo2-instruct"))
    assert (again.sft, again.model, again.template_hash) == (recipe.sft, recipe.model, recipe.template_hash)


def test_plan_prints_the_plan_and_a_dry_run_the_resolved_recipe_before_it() -> None:
    plan, dry_run = call("plan", "quickstart").stdout, call("run", "quickstart", "--dry-run").stdout
    assert "learning_rate" not in plan
    assert plan.splitlines()[0].strip() == "tulu base"
    assert "learning_rate: " in dry_run
    assert dry_run.endswith(plan)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["MODEL", "evaluate.limit=2", "--task", "gsm8k"], "evaluate.limit=2: a model has no fields to override"),
        (["MODEL", "--dry-run", "--task", "gsm8k"], "--dry-run: a model has no plan"),
        (["RECIPE", "--out", "here"], "--out belongs to a model's evaluation"),
        (["RECIPE", "--verifier", "nope"], "evaluate.verifier"),
        (["RECIPE", "--best-of", "4"], "evaluate.best_of"),
        (["RECIPE", "--template", "olmoo"], "template"),
        (["RECIPE", "--template", "gone.jinja"], 'gone.jinja": no such file'),
    ],
)
def test_evaluate_takes_its_options_or_refuses_them(arguments: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nmodel: some/model\nevaluate: {task: gsm8k}\n")
    names = {"MODEL": "some/model", "RECIPE": str(tmp_path / "mine.yaml")}
    result = call("evaluate", *(names.get(argument, argument) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert expected in result.output


def test_options_of_evaluate_are_the_recipes_fields(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nmodel: some/model\nevaluate: {task: gsm8k}\n")
    result = call("evaluate", str(tmp_path / "mine.yaml"), "--limit", "7", "--max-tokens", "9", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "limit: 7" in result.output
    assert "max_tokens: 9" in result.output


def test_an_alias_within_its_own_anchor_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: &a [*a]\n")
    result = call("plan", str(tmp_path / "loop.yaml"))
    assert result.exit_code == 2
    assert "an alias within its own anchor" in result.output
