"""What a name on the command line stands for: a folder, a run, a built-in recipe, the hub."""

import os
from pathlib import Path

import pytest

from tulu.config.load import load_recipe
from tulu.config.named_models import Named, named_model
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
