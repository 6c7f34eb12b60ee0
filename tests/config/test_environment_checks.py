"""What a recipe may say of an environment, and what is refused before torch is imported."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.config.job import stages_of
from tulu.config.load import load_recipe
from tulu.config.parts import with_own_rows
from tulu.config.recipe_stages import stages_in
from tulu.config.tasksets import taskset_files, taskset_problem
from tulu.config.tiny_section import TinySection
from tulu.errors import RecipeError

Write = Callable[[str], str]
RECIPE = "quickstart-tools"
MODEL = "name: r\nmodel: allenai/OLMo-2-0425-1B\ntemplate: tulu\n"
GROUPS = "max_length: 64, max_prompt: 32, max_tokens: 16, batch: 4, prompts: 2, samples: 2, steps: 2, learning_rate: 1e-4"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rlvr.env.path=nowhere.py", r"rlvr\.env\.path.*no such file; write FILE\.py"),
        ("rlvr.env.path=python:Other", "has no class Other; write python"),
        ("rlvr.env.path=openenv:http://host", "write openenv:ws://HOST:PORT/ws"),
        ("rlvr.env.path=reasoning_gym:leg_counting", r"rlvr\.data.*plays its own rows; remove data, or set it to that name"),
        ("rlvr.env.path='verifiers:'", r"rlvr\.env\.path.*names no task set; write verifiers:OWNER/NAME"),
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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("def make():\n    class Made: ...\n    return Made\nEnv = make()", ":Env"),
        ("from elsewhere import Env", ""),
        ("from elsewhere import *", ":Env"),
        ("import elsewhere\nEnv: type = elsewhere.Env", ":Env"),
        ("if (Env := type('Env', (), {})):\n    pass", ":Env"),
        ("A, B = make()", ":B"),
    ],
)
def test_a_name_that_may_be_a_class_is_left_to_whoever_runs_the_file(text: str, wanted: str, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(text)
    assert load_recipe(RECIPE, [f"rlvr.env={file}{wanted}"])


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with an installed package `verifiers` and a task set `my_game_v1` beside it, and reasoning_gym."""
    for file in (
        "verifiers/__init__.py",
        "verifiers/v1/tasksets/harbor/__init__.py",
        "my_game_v1.py",
        "reasoning_gym/__init__.py",
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    # pytest's folder of tests may stand before it, where this project's own folder of that name is none.
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for name in ("verifiers", "reasoning_gym"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("verifiers:someone/my-game-v1@0.2", None),
        ("verifiers:harbor", None),
        ("verifiers:someone/other", r"no module other is installed; install it \(prime env install someone/other\)"),
        ("verifiers:{here}/my_game_v1.py", None),
        ("verifiers:{here}/games", None),
        ("verifiers:{here}/empty", r"no task set there; a folder holds empty\.py or empty/__init__\.py"),
        ("reasoning_gym:chain_sum", None),
    ],
)
def test_an_environment_with_rows_of_its_own_brings_them(path: str, problem: str | None, packages: Path) -> None:
    (packages / "games").mkdir()
    (packages / "games" / "games.py").touch()
    (packages / "empty").mkdir()
    place = path.format(here=packages)
    given = [
        f"rlvr.env={{path: '{place}', options: {{level: 3}}}}",
        f"rlvr.data=[{{name: '{place}', count: 4, options: {{level: 3}}}}]",
    ]
    if problem is not None:
        with pytest.raises(RecipeError, match=problem) as told:
            load_recipe(RECIPE, given)
        # The rows that it brings along have the same name, which is told of once.
        assert ": 1 problem\n  command line: rlvr.env.path: " in str(told.value)
        return
    assert load_recipe(RECIPE, given)
    with pytest.raises(RecipeError, match="remove data, or set it to that name, with the same options"):
        load_recipe(RECIPE, given[:1])
    section = {"env": {"path": place, "options": {"level": 3}}}
    assert with_own_rows(section)["data"] == [{"name": place, "fraction": 1.0, "options": {"level": 3}}]


@pytest.mark.parametrize("stage", ["rlvr", "evaluate"])
def test_rows_that_an_environment_brings_are_there_for_every_check(stage: str, packages: Path, write: Write) -> None:
    """Without `data`, what is wrong beside them is told too, and nothing is asked for that they are."""
    fields = GROUPS if stage == "rlvr" else "task: own"
    asked = f"{stage}: {{env: 'verifiers:HERE', {fields}}}"
    recipe = load_recipe(write(MODEL + asked.replace("HERE", "harbor")))
    assert [source.name for source in getattr(recipe, stage).data] == ["verifiers:harbor"]
    with pytest.raises(RecipeError, match=rf"{stage}\.env\.path.*no module other is installed"):
        load_recipe(write(MODEL + asked.replace("HERE", "someone/other")))


@pytest.mark.usefixtures("packages")
def test_made_small_it_keeps_its_rows() -> None:
    given = ["rlvr.env=verifiers:harbor", "rlvr.data=[{name: 'verifiers:harbor', count: 4000}]"]
    recipe = load_recipe(RECIPE, given)
    [section] = [TinySection(stage, Path("inputs"), (stage,)) for stage in stages_of(recipe) if stage.key == "rlvr"]
    assert section.values()["rlvr.data"] == [{"name": "verifiers:harbor", "count": 16}]
    assert section.rows() == []
    asked = load_recipe(RECIPE, ["evaluate={task: own, env: 'verifiers:harbor'}"])
    [section] = [TinySection(stage, Path("inputs"), (stage,)) for stage in stages_in(dict(asked)) if stage.key == "evaluate"]
    assert section.values()["evaluate.data"] == [{"name": "verifiers:harbor", "count": 16}]


def test_what_is_not_installed_is_told_with_the_extra_that_brings_it(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (packages / "verifiers" / "__init__.py").unlink()
    monkeypatch.setattr(sys, "path", [str(packages)])
    assert taskset_problem("harbor") == "the package verifiers is not installed: pip install 'tulu[environments]'"


def test_this_projects_own_folder_is_not_taken_for_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verifiers" / "v1").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "verifiers", raising=False)
    assert taskset_problem("harbor") == "the package verifiers is not installed: pip install 'tulu[environments]'"


def test_a_run_is_pinned_to_the_files_of_its_task_set(packages: Path) -> None:
    assert taskset_files("someone/my-game-v1") == [packages / "my_game_v1.py"]
    assert taskset_files(f"{packages}/my_game_v1.py") == [packages / "my_game_v1.py"]
    assert [file.name for file in taskset_files("elsewhere")] == []


def test_a_path_alone_is_a_section(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("class Own:\n    def reset(self, **row): ...\n")
    recipe = load_recipe(RECIPE, [f"rlvr.env={file}"])
    assert recipe.rlvr is not None
    assert not isinstance(recipe.rlvr, tuple)
    assert recipe.rlvr.env is not None
    assert (recipe.rlvr.env.path, recipe.rlvr.env.turns) == (str(file), 8)
