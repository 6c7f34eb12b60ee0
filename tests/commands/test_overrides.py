"""Options that are no options but fields of a recipe are told as overrides, with the value that was given."""

import pytest
from typer.testing import CliRunner

from tests.test_bad_input import complained
from tulu.cli import app
from tulu.commands.overrides import meant_as_override


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sft quickstart --sft.batch=3", "--sft.batch: overrides are written sft.batch=3, without dashes"),
        ("sft quickstart --sft.batch 3", "overrides are written sft.batch=3,"),
        ("sft quickstart --batch 3", "--batch: overrides are written sft.batch=3,"),
        ("sft quickstart --learning-rate=1e-5", "overrides are written sft.learning_rate=1e-5,"),
        ("sft quickstart --sft-max-length 3", "overrides are written sft.max_length=3,"),
        ("sft quickstart --batch", "overrides are written sft.batch=VALUE,"),
        ("sft quickstart --model=x", "overrides are written model=x,"),
        ("rlvr --rlvr.batch=3", "overrides are written rlvr.batch=3,"),
        ("run quickstart --beta 0.1", "overrides are written dpo.beta=0.1, without dashes (or rlvr.beta=0.1)"),
        ("plan quickstart --sft.batch=3", "overrides are written sft.batch=3,"),
        ("evaluate quickstart.yaml --evaluate.limit=3", "overrides are written evaluate.limit=3,"),
        ("evaluate quickstart --seed 3", "overrides are written seed=3,"),
        ("evaluate --task sums quickstart --seed 3", "overrides are written seed=3,"),
        ("data quickstart --batch 3", "overrides are written base.batch=3, without dashes (or sft.batch=3"),
        ("recipes show quickstart --sft.batch=3", "overrides are written sft.batch=3,"),
    ],
)
def test_a_field_as_an_option(words: str, expected: str) -> None:
    complained(CliRunner().invoke(app, words.split()), 2, expected)


@pytest.mark.parametrize(
    "words",
    [
        *("sft quickstart --freshh", "sft quickstart --bathc 3", "verify exact --batch 3", "rewardbench x --sft.batch=3"),
        # A model has no fields, so that an override would be refused in its turn.
        *("evaluate some/model --samples 4", "evaluate some/model --suite own.yaml --evaluate.seed=4", "evaluate --seed 4"),
    ],
)
def test_other_options_keep_the_usual_message(words: str) -> None:
    result = CliRunner().invoke(app, words.split())
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_a_value_is_found_where_it_stands() -> None:
    assert "sft.batch=3," in str(meant_as_override("sft", "--batch", ["sft", "x", "--batch", "3", "--runs", "y"]))
    assert "sft.batch=VALUE," in str(meant_as_override("sft", "--batch", ["sft", "x", "--batch", "--runs", "y"]))
    assert meant_as_override("sft", "--nothing", ["--nothing", "3"]) is None
