"""Fields that were never published: nothing trains before they are decided, and everything else works without."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from tests.config.recipe_text import GOOD
from tulu.cli import app
from tulu.config.load import dump, load_recipe
from tulu.config.unknown import demand, open_fields
from tulu.errors import RecipeError

UNKNOWN = GOOD + "unknown:\n  - sft.learning_rate: no command was published\n  - rlvr.data: the mix is not public\n"


def test_training_demands_the_fields_of_its_stages(write: Callable[[str], str]) -> None:
    recipe = load_recipe(write(UNKNOWN))
    assert open_fields(recipe) == {"sft.learning_rate": "no command was published", "rlvr.data": "the mix is not public"}
    demand(recipe, ["dpo"])
    with pytest.raises(RecipeError) as caught:
        demand(recipe, ["sft", "dpo", "rlvr"])
    assert str(caught.value) == (
        "recipe test: 2 fields were never published, so you decide before it trains:\n"
        "  sft.learning_rate: no command was published; the recipe plans with 0.0001\n"
        "  rlvr.data: the mix is not public; the recipe plans with owner/problems\n"
        "append your values, such as sft.learning_rate=0.0001 rlvr.data=rows.jsonl"
    )


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("sft.learning_rate=3e-5", ["rlvr.data"]),
        ("rlvr.data=rows.jsonl", ["sft.learning_rate"]),
        ("rlvr.data.0.count=9", ["sft.learning_rate"]),
        ("sft.batch=8", ["sft.learning_rate", "rlvr.data"]),
        ("sft.learning_rate=1e-4", ["rlvr.data"]),  # The stand-in's own value is a decision too.
    ],
)
def test_an_override_is_the_decision(write: Callable[[str], str], override: str, left: list[str]) -> None:
    assert list(open_fields(load_recipe(write(UNKNOWN), [override]))) == left


def test_what_was_decided_stays_decided_in_the_resolved_recipe(write: Callable[[str], str]) -> None:
    decided = load_recipe(write(UNKNOWN), ["sft.learning_rate=3e-5"])
    assert load_recipe(write(dump(decided))) == decided


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("sft.learning_rat: why", "names no field of a recipe; did you mean learning_rate?"),
        ("sfd.learning_rate: why", "names no section of a recipe; did you mean sft?"),
        ("rm.seed: why", "this recipe has no rm section; add it, or remove the entry"),
        ("rlvr.data: again", "is listed twice; keep one"),
        ("modle: why", "names no field of a recipe; did you mean model?"),
        ("{rlvr.beta: why, rlvr.kl: why}", "unknown.2"),
        ("rlvr.beta", "unknown.2"),
        ("rlvr.beta: 3", "unknown.2.rlvr.beta"),
    ],
)
def test_an_entry_that_names_nothing_is_a_mistake(write: Callable[[str], str], entry: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(f"{UNKNOWN}  - {entry}\n"))
    assert message in str(caught.value)
    assert "r.yaml:" in str(caught.value)


def test_commands_that_train_refuse_and_the_others_name_the_fields(write: Callable[[str], str]) -> None:
    name = write(UNKNOWN)
    for command in (["sft", name], ["run", name]):
        result = CliRunner().invoke(app, [*command, "--runs", "runs"])
        assert result.exit_code == 2
        assert "never published, so you decide before it trains" in result.output
    for command in (["plan", name], ["sft", name, "--dry-run"], ["run", name, "--dry-run"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.output.splitlines() if line.startswith("unknown, to be given before it trains")]
        assert "sft.learning_rate (no command was published)" in line
