"""`tulu rlvr` where a recipe has several RLVR stages: which one it runs, what it runs before, and what it locks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.recipe_text import SEVERAL
from tests.test_cli import call, fake_stages, plain_environment, stages
from tulu.config.job import Job

__all__ = ["plain_environment", "stages"]


def test_several_rlvr_stages_run_one_by_one_and_say_which(
    tmp_path: Path, stages: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    recipe = SEVERAL.replace("released: owner/model-rlvr1", "seed: 4").replace("mixed@step-2", "mixed")
    (tmp_path / "r.yaml").write_text(recipe)
    told = []
    for _ in range(4):
        told.append(call("rlvr", "r.yaml"))
        assert told[-1].exit_code == 0, told[-1].output
    keys = ["rlvr.mixed", "rlvr.gsm", "rlvr.math"]
    assert [job.stage for job in stages] == [*keys, "rlvr.math"], "the last one again, which says that it is finished"
    assert [job.folder.name for job in stages[:3]] == ["mixed", "gsm", "math"]
    assert [job.start for job in stages[:3]] == ["owner/model", "runs/test/mixed/model", "runs/test/gsm/model"]
    for result, key in zip(told, keys, strict=False):
        assert f"{key}: the stage that `tulu rlvr` runs now; --stage NAME runs another" in result.stderr
    named = call("rlvr", "r.yaml", "--stage", "gsm", "--fresh")
    assert named.exit_code == 0, named.output
    assert (stages[-1].stage, stages[-1].fresh) == ("rlvr.gsm", True)
    assert call("rlvr", "r.yaml", "--stage", "gms").exit_code == 2
    dry = call("rlvr", "r.yaml", "--stage", "gsm", "--dry-run")
    assert "tulu rlvr: gsm" in dry.stdout
    assert "start       runs/test/mixed/model" in dry.stdout


def test_a_later_rlvr_stage_runs_the_one_before_first_and_locks_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str]]] = []

    def run(job: Job) -> Path:
        seen.append((job.stage, sorted(file.name for file in job.folder.parent.glob(".*.lock"))))
        (job.folder / "model").mkdir(parents=True)
        (job.folder / "recipe.yaml").write_text("model: owner/model\nrevision: null\n")
        return job.folder / "model"

    fake_stages(monkeypatch, run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "r.yaml").write_text(SEVERAL.replace("    released: owner/model-rlvr1\n", "").replace("mixed@step-2", "mixed"))
    result = call("rlvr", "r.yaml", "--stage", "gsm")
    assert result.exit_code == 0, result.output
    assert seen == [(key, [".gsm.lock", ".mixed.lock"]) for key in ("rlvr.mixed", "rlvr.gsm")]
    assert "rlvr.gsm has no model to start from yet: running rlvr.mixed first" in result.stderr


def test_a_checkpoint_that_is_not_there_ends_the_command_before_torch(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "r.yaml").write_text(SEVERAL)
    folder = tmp_path / "runs" / "test" / "mixed"
    (folder / "model").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("model: owner/model\nrevision: null\n")
    code = (
        "import sys; from tulu.cli import app\n"
        "try: app(['rlvr', 'r.yaml', '--stage', 'gsm'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr
    assert "runs/test/mixed has no model of step 2; it kept the last alone" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
