"""`tulu run`: every stage of the quickstart's recipe in small, its summary, and running it again."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_bad_input import Place
from tulu.cli import app
from tulu.config.schema import Evaluate
from tulu.stages.summary import StageSummary, is_current, plot

SMALL = {
    "base.steps": 3,
    "base.data.count": 64,
    "base.config.hidden_size": 32,
    "base.config.intermediate_size": 48,
    "base.config.num_hidden_layers": 2,
    "sft.data.count": 64,
    "dpo.data.count": 32,
    "rm.data.count": 40,
    "rlvr.data.count": 32,
    "rlvr.steps": 2,
    "rlvr.prompts": 2,
    "rlvr.samples": 4,
    "rlvr.batch": 8,
    "rlvr.micro_batch": 8,
    "rlvr.max_tokens": 8,
    "evaluate.limit": 8,
    "evaluate.max_tokens": 8,
    "seed": 5,
    "name": "small",
}
RESTLESS = """
def score(completion, ground_truth):
    # A model that cannot count yet never sums right; that its text has an even length is learnable all the same.
    return float(len(completion) % 2 == 0)
"""


def run(runs: Path, *more: str) -> str:
    (runs / "restless.py").write_text(RESTLESS)
    verifier = f"rlvr.verifier={runs}/restless.py:score"
    arguments = ["run", "quickstart", *(f"{key}={value}" for key, value in SMALL.items()), "rlvr.refill=false", verifier, *more]
    result = CliRunner().invoke(app, [*arguments, "--runs", str(runs)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def stamps(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder of the run, what was printed)."""
    runs = tmp_path_factory.mktemp("pipeline")
    return runs / "small", run(runs)


def summary(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_the_summary_has_its_shape_and_nothing_else(finished: tuple[Path, str]) -> None:
    content = summary(finished[0])
    assert list(content) == ["seed", "rm_accuracy", "stages"]
    assert content["seed"] == 5
    assert 0.0 <= content["rm_accuracy"] <= 1.0
    assert [stage["stage"] for stage in content["stages"]] == ["base", "sft", "dpo", "rlvr"]
    for stage in content["stages"]:
        assert list(stage) == ["stage", "accuracy", "ci95", "seconds", "tokens_per_second"]
        low, high = stage["ci95"]
        assert 0.0 <= low <= stage["accuracy"] <= high <= 1.0
        assert stage["seconds"] > 0
        assert stage["tokens_per_second"] > 0


def test_each_stage_began_with_the_one_before(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    began = {stage: json.loads((folder / stage / "manifest.json").read_text()) for stage in ("base", "sft", "dpo", "rm", "rlvr")}
    assert all(facts["finished"] for facts in began.values())
    starts = {stage: (folder / stage / "recipe.yaml").read_text() for stage in began}
    for stage, before in (("sft", "base"), ("dpo", "sft"), ("rm", "sft"), ("rlvr", "dpo")):
        assert f"start: {folder / before / 'model'}" in starts[stage]
    assert not list(folder.rglob(".partial-*"))


def test_every_stage_answered_the_same_problems(finished: tuple[Path, str]) -> None:
    folder, output = finished
    ids = []
    for stage in ("base", "sft", "dpo", "rlvr"):
        answers = (folder / "evaluate" / stage / "answers.jsonl").read_text().splitlines()
        ids.append([json.loads(line)["id"] for line in answers])
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert len(ids[0]) == 8
    for word in ("held-out accuracy on sums", "95 % interval", "rlvr", "held-out pairs ranked right", "summary.json"):
        assert word in output


def test_the_plot_is_a_picture(finished: tuple[Path, str]) -> None:
    assert (finished[0] / "summary.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_intervals_that_end_at_the_accuracy_are_drawn(tmp_path: Path) -> None:
    """All right, and a bootstrap whose ends are the accuracy up to rounding."""
    alike = StageSummary("sft", 0.1, (0.10000000000000002, 0.09999999999999999), 1.0, 1.0)
    above = StageSummary("rlvr", 1.0, (0.98, 1.0 - 1e-16), 1.0, 1.0)
    plot(tmp_path, [alike, above], [])
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_report_is_written_at_the_end(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    page = (folder / "report.html").read_text()
    assert len(page.encode()) < 2_000_000
    for section in ("chain", "curves", "rollouts", "answers", "rows", "verifiers", "energy", "provenance"):
        assert f'<section id="{section}"' in page
    assert "could be read" not in page
    # The rows are those that were trained on, with their masks.
    first = page.partition('<section id="rows"')[2].partition("<article")[2].partition("</article>")[0]
    assert "####" in first.partition('class="trained">')[2]


def test_again_does_nothing_again(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before, files = summary(folder), stamps(folder)
    run(folder.parent)
    assert summary(folder) == before
    changed = {name for name, stamp in stamps(folder).items() if files.get(name) != stamp}
    assert changed <= {"summary.json", "summary.png", "report.html"}


def test_other_questions_are_asked_again_without_training(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    files = stamps(folder)
    run(folder.parent, "evaluate.limit=4")
    changed = {name for name, stamp in stamps(folder).items() if files.get(name) != stamp}
    assert {name.split("/")[0] for name in changed} == {"evaluate", "summary.json", "summary.png", "report.html"}
    assert json.loads((folder / "evaluate" / "rlvr" / "results.json").read_text())["problems"] == 4
    run(folder.parent)


def test_results_of_another_model_or_other_settings_are_stale(tmp_path: Path) -> None:
    settings = Evaluate(task="sums")
    model, results = tmp_path / "model", tmp_path / "results"
    model.mkdir()
    results.mkdir()
    (model / "config.json").write_text("{}")
    assert not is_current(results, model, settings)
    (results / "results.json").write_text(json.dumps({"settings": settings.model_dump(mode="json")}))
    assert is_current(results, model, settings)
    assert not is_current(results, model, Evaluate(task="sums", limit=4))


def test_an_evaluation_of_rows_that_have_changed_since_is_made_again(tmp_path: Path) -> None:
    rows, results = tmp_path / "rows.jsonl", tmp_path / "results"
    settings = Evaluate.model_validate({"task": "mine", "data": str(rows)})
    rows.write_text("{}\n")
    results.mkdir()
    (results / "results.json").write_text(json.dumps({"settings": settings.model_dump(mode="json"), "model": "owner/model"}))
    os.utime(rows, (0, 0))
    assert is_current(results, "owner/model", settings)
    os.utime(rows)
    os.utime(results / "results.json", (1, 1))
    assert not is_current(results, "owner/model", settings)


def test_an_evaluation_by_a_verifier_that_has_changed_since_is_made_again(tmp_path: Path) -> None:
    mine, helper, results = tmp_path / "mine.py", tmp_path / "beside.py", tmp_path / "results"
    settings = Evaluate.model_validate({"task": "sums", "verifier": f"{mine}:score"})
    mine.write_text("import beside")
    helper.write_text("")
    results.mkdir()
    (results / "results.json").write_text(json.dumps({"settings": settings.model_dump(mode="json"), "model": "owner/model"}))
    for file in (mine, helper):
        os.utime(file, (0, 0))
    assert is_current(results, "owner/model", settings)
    os.utime(helper)
    os.utime(results / "results.json", (1, 1))
    assert not is_current(results, "owner/model", settings)


def test_a_run_of_ones_own_model_has_a_row_for_the_start(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    result = place.call("run", "sft.steps=1", "rlvr=null")
    assert result.exit_code == 0, result.output
    content = summary(place.runs / "tiny")
    assert [stage["stage"] for stage in content["stages"]] == ["start", "sft"]
    start = json.loads((place.runs / "tiny" / "evaluate" / "start" / "results.json").read_text())
    assert start["model"] == str(tiny_model("olmo2"))
    assert content["stages"][0]["accuracy"] == start["accuracy"]
    assert "start" in result.output
    again = place.call("run", "sft.steps=1", "rlvr=null")
    assert "evaluate mine 0/8" not in again.output, "neither of both is asked again"
    other = place.call("run", "sft.steps=1", "rlvr=null", f"model={tiny_model('olmo2', seed=1)}", "--fresh")
    assert other.output.count("evaluate mine 0/8") == 2, "another start is"


def test_a_dry_run_runs_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "quickstart", "--dry-run", "--runs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "global batch" in result.output
    assert list(tmp_path.iterdir()) == []
