"""Every row of the shared folder `field`: verdicts, attacks and programs from the field, each with the score that is right."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tulu.errors import DataError, RecipeError
from tulu.grading.grader import Grader
from tulu.types import Message, Problem
from tulu.verifiers.registry import check_gold, check_name

FOLDER = Path(os.environ.get("TULU_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "field"


def rows(name: str) -> list[Any]:
    """The rows of a file as parameters, named by file and line; one that skips by name where the folder is absent."""
    path = FOLDER / f"{name}.jsonl"
    if not path.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(f"{path.name} is absent: set TULU_SHARED to the folder of field/"))]
    lines = path.read_text(encoding="utf-8").splitlines()
    return [pytest.param(json.loads(line), id=f"{name}-{number}") for number, line in enumerate(lines, 1)]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(2, deadline=20.0) as shared:
        yield shared


@pytest.mark.parametrize("row", [*rows("verdicts"), *rows("attacks"), *rows("programs")])
def test_the_score_is_right(row: dict[str, Any], grader: Grader) -> None:
    name = row["verifier"]
    try:
        check_name(name)
    except RecipeError as fault:
        pytest.skip(f"{name} cannot run here: {fault}")
    kind = row.get("kind") or f"{row.get('class')}: {row.get('name')}"
    try:
        check_gold(name, row["ground_truth"])
    except DataError:
        # A gold that is refused at load pays for nothing; an answer that is right needs one that is not.
        assert row["expected"] == 0, f"{kind}: the gold is refused"
        return
    prompt: list[Message] = [{"role": "user", "content": row.get("prompt", "")}]
    problem = Problem(
        kind, prompt, (), row["ground_truth"], (name,), {"completion_tokens": len(row["completion"].split()), **row}
    )
    [verdict] = grader.grade([(row["completion"], problem)])
    assert verdict.score == row["expected"], f"{kind}: {verdict}"
