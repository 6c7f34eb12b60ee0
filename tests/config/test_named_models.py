"""What a name on the command line stands for: a folder, a run, a built-in recipe, the hub."""

import os
from pathlib import Path

import pytest

from tulu.config.load import load_recipe
from tulu.config.named_models import Named, named_model, naming, runs_in
from tulu.errors import RecipeError


def make_model(folder: Path, seconds: int, architecture: str = "Olmo2ForCausalLM") -> Path:
    folder.mkdir(parents=True)
    config = folder / "config.json"
    config.write_text(f'{{"model_type": "olmo2", "architectures": ["{architecture}"]}}')
    (folder / "model.safetensors").write_bytes(b"")
    os.utime(config, (seconds, seconds))
    return folder


def test_a_run_is_its_newest_model_that_answers(tmp_path: Path) -> None:
    make_model(tmp_path / "mine" / "sft" / "model", 1)
    newest = make_model(tmp_path / "mine" / "dpo" / "model", 2)
    make_model(tmp_path / "mine" / "rm" / "model", 3, "Olmo2ForSequenceClassification")
    assert named_model("mine", tmp_path) == Named(str(newest))
    assert named_model(str(tmp_path / "mine"), tmp_path) == Named(str(newest)), "by its folder too"
    assert named_model("mine/sft", tmp_path) == Named(str(tmp_path / "mine" / "sft" / "model")), "one of its stages"


def test_a_run_without_a_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine" / "sft").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"mine: the run .* has no model that answers yet"):
        named_model("mine", tmp_path)


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "mine", 1)
    make_model(tmp_path / "runs" / "mine" / "sft" / "model", 2)
    assert named_model("mine", Path("runs")) == Named("mine")


def test_a_built_in_recipe_is_its_run_or_its_start(tmp_path: Path) -> None:
    recipe = load_recipe("tulu3-8b")
    assert named_model("tulu3-8b", tmp_path) == Named(str(recipe.model), recipe.template, recipe.revision)
    model = make_model(tmp_path / recipe.name / "sft" / "model", 1)
    assert named_model("tulu3-8b", tmp_path) == Named(str(model))
    with pytest.raises(RecipeError, match="quickstart: the recipe makes its model, and has none in"):
        named_model("quickstart", tmp_path)


def test_anything_else_is_left_to_the_hub(tmp_path: Path) -> None:
    assert named_model("allenai/OLMo-2-1124-7B-Instruct", tmp_path) == Named("allenai/OLMo-2-1124-7B-Instruct")


def make_run(runs: Path) -> None:
    for stage in ("mine/sft", "mine/dpo", "tulu3-9b/sft"):
        (runs / stage).mkdir(parents=True)
        (runs / stage / "recipe.yaml").write_text("name: x\n")
    (runs / "rewardbench" / "something").mkdir(parents=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("min", "did you mean mine"),
        ("mine/sfft", "did you mean mine/sft?"),
        ("quickstrat", "did you mean quickstart?"),
        ("nowhere", "or a built-in recipe (tulu recipes lists them)"),
        ("no name", "or a built-in recipe"),
    ],
)
def test_a_name_that_is_nothing_may_have_been_meant_for_another(tmp_path: Path, name: str, hint: str) -> None:
    make_run(tmp_path)
    assert runs_in(tmp_path) == ["mine", "tulu3-9b", "mine/dpo", "mine/sft", "tulu3-9b/sft"]
    with pytest.raises(RecipeError) as told, naming(name, tmp_path):
        raise RecipeError(f"{name}: cannot be loaded as a model (no)\nGive a model folder.")
    assert str(told.value).startswith(f"{name}: cannot be loaded as a model (no)\nGive a model folder.\nIt may also be a run or")
    assert f"({tmp_path} holds mine, tulu3-9b)" in str(told.value)
    assert hint in str(told.value).splitlines()[-1]


def test_other_errors_and_paths_stay_as_they_are(tmp_path: Path) -> None:
    for name, text in (("nowhere", "--task x: no such task"), ("./nowhere", "./nowhere: no such folder")):
        with pytest.raises(RecipeError) as told, naming(name, tmp_path):
            raise RecipeError(text)
        assert str(told.value) == text
