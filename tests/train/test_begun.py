"""What a run is compared with when it is resumed: no record of that may be missing, and a folder may move."""

import shutil
from pathlib import Path

import pytest

from tests.train.test_run import job, opened
from tulu.config.job import Job, of_steps
from tulu.config.schema import Recipe
from tulu.errors import ResumeError
from tulu.train.begun import check_recipe


@pytest.mark.parametrize("lost", ["manifest.json", "recipe.yaml"])
def test_what_is_on_the_disk_is_not_resumed_by_another_recipe_when_a_record_is_lost(lost: str, tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="as it is")
    run.save(1)
    (run.path / lost).unlink()
    with pytest.raises(ResumeError, match=f"there is no {lost} that says with what step-000001 was made"):
        opened(tmp_path, learning_rate=1.0)
    shutil.rmtree(run.path / "checkpoints")
    opened(tmp_path, learning_rate=1.0)


def test_rollouts_count_as_something_that_was_made(tmp_path: Path) -> None:
    (stream := job(tmp_path).folder / "stream").mkdir(parents=True)
    (stream / "from-000000.jsonl").touch()
    with pytest.raises(ResumeError, match=r"with what from-000000\.jsonl was made"):
        opened(tmp_path)


def test_the_folder_of_all_runs_may_move_and_be_named_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path / "runs", start=str(tmp_path / "runs" / "tiny" / "base" / "model")).pin(data="as it is")
    (tmp_path / "runs").rename(tmp_path / "moved")
    opened(tmp_path / "moved", start=str(tmp_path / "moved" / "tiny" / "base" / "model"))
    monkeypatch.chdir(tmp_path)
    opened(Path("moved"), start="moved/tiny/base/model")
    # Another stage's model, one kept on the way and one outside of the folder are other models.
    for other in ("moved/tiny/dpo/model", "moved/tiny/base/models/step-000001", "elsewhere/tiny/base/model"):
        with pytest.raises(ResumeError, match=f"start: .* -> .*{other}"):
            opened(Path("moved"), start=other)


def test_copies_that_a_person_made_are_left_alone(tmp_path: Path) -> None:
    run = opened(tmp_path, keep_checkpoints=1)
    run.pin(data="as it is")
    run.rollouts(1, [{"id": "row"}])
    run.save(1)
    copies = [
        Path(shutil.copytree(run.path / "checkpoints" / "step-000001", run.path / "checkpoints" / "step-000001.bak")),
        Path(shutil.copy(run.path / "rollouts" / "step-000001.parquet", run.path / "rollouts" / "step-000009 (copy).parquet")),
    ]
    again = opened(tmp_path, keep_checkpoints=1)
    again.resume()
    again.save(1_000_000)
    assert (again.step, again.checkpoints.oldest_step()) == (1, 1_000_000)
    assert all(copy.exists() for copy in copies)
    # As text, the second is the larger one.
    (run.path / "checkpoints" / "step-999999").mkdir()
    assert [*of_steps(run.path / "checkpoints")] == [999_999, 1_000_000]
    assert again.checkpoints.newest() == run.path / "checkpoints" / "step-1000000"


def test_a_stage_of_several_has_its_fields_named_as_overrides_name_them(tmp_path: Path) -> None:
    """`rlvr.math.steps=3` is what changes them, and not `rlvr.steps`."""
    fields = {"data": "rows.jsonl", "max_prompt": 4, "max_tokens": 4, "max_length": 8, "batch": 4, "prompts": 2, "samples": 2}

    def of(steps: int) -> Job:
        sections = [{**fields, "name": name, "steps": steps, "learning_rate": 0.1} for name in ("mixed", "math")]
        return Job(Recipe.model_validate({"name": "tiny", "model": "m", "rlvr": sections}), "rlvr.math", tmp_path / "math", "m")

    (tmp_path / "math").mkdir()
    check_recipe(of(2))
    (tmp_path / "math" / "manifest.json").write_text('{"pinned": {"data": "d"}}')
    with pytest.raises(ResumeError, match=r"\n  rlvr\.math\.steps: 2 -> 3\n"):
        check_recipe(of(3))
