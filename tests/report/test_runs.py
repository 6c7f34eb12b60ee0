"""What lies in the folder of a run."""

import json
import shutil
from pathlib import Path

import pytest

from tests.report.made_run import make_run, make_stage, write_evaluation
from tulu.errors import RecipeError
from tulu.intervals import wilson
from tulu.report.runs import find_run, read_run
from tulu.report.sections import answers, chain


def test_the_chain_is_in_the_order_of_training_with_its_figures(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "demo"))
    assert [stage.name for stage in run.stages] == ["sft", "dpo", "rm", "rlvr"]
    first = run.stages[0].accuracy
    assert first is not None
    assert first[0] == 0.3
    assert first[1] == pytest.approx((0.25, 0.35))
    assert run.stages[2].accuracy is None, "a reward model answers nothing"
    assert run.stages[2].pairs_right == (0.95, wilson(0.95, 400))
    # 100 tokens in half a second, at each of 12 steps.
    assert run.stages[3].tokens_per_second == pytest.approx(200)
    assert [stage.state for stage in run.stages] == ["finished"] * 4
    assert [bench["title"] for bench in run.rewardbench] == ["demo/rm/model on RewardBench v2"]
    assert run.faults.lines == []


def test_several_stages_of_a_kind_follow_each_other_by_where_they_start(tmp_path: Path) -> None:
    for name, start in (("zeta", "runs/demo/dpo/model"), ("alpha", "runs/demo/zeta/model"), ("beta", "runs/demo/alpha/model")):
        make_stage(tmp_path / name, "rlvr", 2, "")
        recipe = (tmp_path / name / "recipe.yaml").read_text().replace("runs/demo/rlvr/before", start)
        (tmp_path / name / "recipe.yaml").write_text(recipe)
    assert [stage.name for stage in read_run(tmp_path).stages] == ["zeta", "alpha", "beta"]


def test_a_circle_of_starts_ends(tmp_path: Path) -> None:
    for name, start in (("a", "runs/demo/b/model"), ("b", "runs/demo/a/model")):
        make_stage(tmp_path / name, "rlvr", 2, "")
        recipe = (tmp_path / name / "recipe.yaml").read_text().replace("runs/demo/rlvr/before", start)
        (tmp_path / name / "recipe.yaml").write_text(recipe)
    assert {stage.name for stage in read_run(tmp_path).stages} == {"a", "b"}


def test_one_stage_alone_has_the_evaluation_that_lies_beside_it(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "demo") / "rlvr")
    assert [(stage.name, stage.accuracy and stage.accuracy[0]) for stage in run.stages] == [("rlvr", 0.9)]
    assert run.name == "demo/rlvr"


def test_unfinished_and_failed_stages_say_where_they_stand(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "demo")
    manifest = json.loads((folder / "rlvr/manifest.json").read_text())
    (folder / "rlvr/manifest.json").write_text(json.dumps({**manifest, "finished": False}))
    (folder / "rlvr/status.json").write_text(json.dumps({"state": "stopped: EngineError: gone", "steps": 40}))
    (folder / "dpo/manifest.json").write_text("{")
    shutil.rmtree(folder / "sft")
    (folder / "sft").mkdir()
    (folder / "sft/recipe.yaml").write_text("sft: {}\n")
    run = read_run(folder)
    assert [stage.state for stage in run.stages] == [
        "begun, no step yet",
        "not finished, 12 steps",
        "finished",
        "not finished, 12 of 40 steps: stopped: EngineError: gone",
    ]
    assert len(run.faults.lines) == 1
    assert run.faults.lines[0].startswith("dpo/manifest.json: cannot be read")


def test_runs_are_found_by_name_and_by_folder(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "demo")
    assert find_run("demo", tmp_path / "runs") == folder.resolve()
    assert find_run(str(folder), tmp_path) == folder.resolve()
    assert find_run("demo/rlvr", tmp_path / "runs") == (folder / "rlvr").resolve()
    with pytest.raises(RecipeError, match=r"nothing: there is no such run.*holds demo"):
        find_run("nothing", tmp_path / "runs")
    with pytest.raises(RecipeError, match="no run and no stage of one"):
        find_run(str(folder / "evaluate"), tmp_path / "runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(RecipeError, match="no run and no stage of one"):
        find_run(str(tmp_path / "file"), tmp_path / "runs")


def test_the_chain_begins_with_the_model_before_any_stage(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "demo")
    without = [row.cells for row in chain(read_run(folder), 0)]
    assert [cells[0] for cells in without] == ["sft", "dpo", "rm", "rlvr"]
    write_evaluation(folder / "evaluate" / "start", 0.1, "")
    run = read_run(folder)
    rows = {str(row.cells[0]): row.cells for row in chain(run, 0)}
    assert list(rows) == ["start", "sft", "dpo", "rm", "rlvr"]
    assert [cells[3] for cells in rows.values()] == ["10.0 %", "30.0 %", "35.0 %", "95.0 % of pairs", "90.0 %"]
    assert [cells[5] for cells in rows.values()] == ["", "+20.0", "+5.0", "", "+55.0"]
    assert {len(cells) for cells in rows.values()} == {10}
    assert [answer["stage"] for answer in answers(run)[0]["rows"]] == ["start", "sft", "dpo", "rlvr"]
    assert answers(run)[0]["rows"][0]["right"] is False, "first those that the last stage solves and the start does not"
    assert read_run(folder / "rlvr").start == {}, "a stage alone has no chain"
