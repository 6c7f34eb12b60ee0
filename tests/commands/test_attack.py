"""`tulu verify --attack`: golds of a file are read all at once, and what is wrong with them is told with its cure."""

import json
from pathlib import Path

import pytest

from tulu.commands.attack import attack_verifiers
from tulu.errors import DataError, RecipeError

GOOD = {"ground_truth": "18", "prompt": "How many?"}


def written(folder: Path, *lines: str) -> str:
    (folder / "golds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return str(folder / "golds.jsonl")


def test_odd_rows_are_counted_and_named_with_the_cure(tmp_path: Path) -> None:
    """All of the forms that a row can lack, and more of them than a message names."""
    odd = ['{"truth": "3"}', "[", "7", json.dumps({**GOOD, "messages": [{"role": "user"}]}), *['{"prompt": "q"}'] * 9]
    source = written(tmp_path, json.dumps(GOOD), *odd, json.dumps(GOOD))
    with pytest.raises(DataError) as told:
        attack_verifiers("gsm8k", source)
    lines = str(told.value).splitlines()
    assert lines[0] == "13 of 15 rows cannot be attacked:"
    assert [line.split(", ")[0].split(": ")[0] for line in lines[1:11]] == [f"{source}:{number}" for number in range(2, 12)]
    assert lines[11:] == ["… and 3 more", "Correct or remove these lines first; nothing was attacked."]
    assert told.value.exit_code == 2


def test_golds_that_the_verifier_takes_none_of(tmp_path: Path) -> None:
    source = written(tmp_path, '{"ground_truth": "no number"}', '{"ground_truth": []}')
    with pytest.raises(
        DataError, match=r"2 of 2 rows cannot be used:\n.*golds.jsonl:1: (.|\n)*tulu verifiers NAME shows their form"
    ):
        attack_verifiers("gsm8k", source)
    with pytest.raises(DataError, match=r"no such file .*; correct --golds"):
        attack_verifiers("gsm8k", str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="no rows; give --golds a file"):
        attack_verifiers("gsm8k", written(tmp_path))


def test_an_unknown_verifier_is_told_as_one() -> None:
    with pytest.raises(RecipeError, match="'maths' is unknown; did you mean math"):
        attack_verifiers("maths", None)
