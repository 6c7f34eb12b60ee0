"""What a recipe may say of an environment, and what is refused before torch is imported."""

from pathlib import Path

import pytest

from tulu.config.load import load_recipe
from tulu.errors import RecipeError

RECIPE = "quickstart-tools"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rlvr.env.path=nowhere.py", r"rlvr\.env\.path.*no such file; write FILE\.py"),
        ("rlvr.env.path=python:Other", "has no class Other; write python"),
        ("rlvr.env.path=openenv:http://host", "write openenv:ws://HOST:PORT/ws"),
        ("rlvr.env.path=reasoning_gym:leg_counting", r"they are data: set data\.name to it"),
        ("rlvr.stop=[END]", r"rlvr\.stop.*remove it"),
        ("rlvr.reward_model=model", "reads no turns of tools yet"),
        ("rlvr.env.call_seconds=0", r"rlvr\.env\.call_seconds"),
    ],
)
def test_what_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(RECIPE, [override])


@pytest.mark.parametrize(
    ("file", "text", "wanted", "message"),
    [
        ("rows.jsonl", "", "", "is no Python file"),
        ("own.py", "class Own(:", "", r"cannot be read as Python \(invalid syntax"),
        ("own.py", "one = 1", "", "defines no class; write one"),
        ("own.py", "class Own:\n    def reset(self): ...", ":Other", "defines no class Other; it has Own"),
    ],
)
def test_a_file_without_an_environment_is_told_before_any_stage_runs(
    file: str, text: str, wanted: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(RECIPE, [f"rlvr.env={tmp_path / file}{wanted}"])


def test_a_path_alone_is_a_section(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("class Own:\n    def reset(self, **row): ...\n")
    recipe = load_recipe(RECIPE, [f"rlvr.env={file}"])
    assert recipe.rlvr is not None
    assert not isinstance(recipe.rlvr, tuple)
    assert recipe.rlvr.env is not None
    assert (recipe.rlvr.env.path, recipe.rlvr.env.turns) == (str(file), 8)
