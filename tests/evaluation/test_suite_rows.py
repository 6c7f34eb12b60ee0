"""How a suite's templates make problems of rows: what cannot be filled in is named, and no template reaches the machine."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.test_suite import request, sum_task, sums, write_rows, write_suite
from tulu.config.suites import SuiteTask
from tulu.errors import DataError
from tulu.evaluation.suite import run_suite
from tulu.evaluation.suite_rows import write_rows as write_asked


def test_a_row_without_a_column_is_named(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"question": "1"}])
    suite = write_suite(tmp_path, {"one": sum_task(data)})
    with pytest.raises(DataError, match=r"rows.jsonl:1: 'answer' cannot be filled in: .*its columns are question"):
        run_suite(request(tiny_model("olmo2"), suite, tmp_path / "out"))


@pytest.mark.parametrize("gold", ["{'answer': question, 'choices': [choices]}", "1 / (question | int)", "none | boxed"])
def test_an_expression_that_has_no_value_is_named_with_its_row(gold: str, tmp_path: Path) -> None:
    """A column that is not there may stand deep in a ground truth, and a filter raises what it likes."""
    task = SuiteTask.model_validate(sum_task(write_rows(tmp_path / "rows.jsonl", [{"question": "0"}]), gold=gold))
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* cannot be filled in: .*its columns are question"):
        write_asked(task, task.data or (), tmp_path / "out", 1)


def test_a_column_may_have_any_name(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"question": "1", "self": "a", "row": "b"}])
    task = SuiteTask.model_validate(sum_task(rows, gold="row['self']"))
    asked = write_asked(task, task.data or (), tmp_path / "out", 1)
    assert json.loads(asked.read_text())["ground_truth"] == "a"


def test_no_template_of_a_suite_reaches_the_machine(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    """A suite may be another person's file: what its templates could do in Python they cannot do here."""
    data = sums(tmp_path, 1)
    attack = "{{ question.__class__.__mro__[1].__subclasses__() }}"
    suite = write_suite(tmp_path, {"one": sum_task(data, ask=attack)})
    with pytest.raises(DataError, match="unsafe"):
        run_suite(request(tiny_model("olmo2"), suite, tmp_path / "out"))
