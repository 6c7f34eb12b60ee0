"""Where a suite's average is over less than its report's, the table and results.json say so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.evaluation.test_suite import request, sum_task, sums, write_suite
from tulu.config.suites import load_suite
from tulu.evaluation.suite import run_suite
from tulu.evaluation.suite_scores import average_note


def test_an_average_without_tasks_of_the_report_says_so_where_it_stands(
    tmp_path: Path, tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """All tasks of the suite are done, and the report has more."""
    suite = write_suite(tmp_path, {"a": sum_task(sums(tmp_path))}, left_out={"b": "nobody publishes it"})
    run_suite(request(tiny_model("olmo2"), suite, tmp_path / "out"))
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (content["lacking"], content["tasks_of_the_report"], content["limit"]) == ([], 2, None)
    assert content["average_note"] == "the average is over 1 of 2 tasks, without b: it is not the report's"
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("mine (1 of 2 tasks: not", "average of 1 of 2", content["average_note"], "b is not in this suite: nobody publ"):
        assert text in shown
    whole = write_suite(tmp_path, {"a": sum_task(sums(tmp_path))})
    run_suite(request(tiny_model("olmo2"), whole, tmp_path / "whole"))
    assert json.loads((tmp_path / "whole" / "results.json").read_text())["average_note"] == ""
    assert "not the report's" not in capsys.readouterr().out


def test_the_unseen_suite_has_fewer_tasks_than_its_report_and_says_which() -> None:
    assert average_note(load_suite("tulu3-unseen"), []) == (
        "the average is over 5 of 7 tasks, without ifeval_ood, href: it is not the report's"
    )
    assert [average_note(load_suite(name), []) for name in ("tulu3-dev", "olmo2", "code")] == ["", "", ""]


def test_another_number_of_rows_than_the_original_has_is_told(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    data = sums(tmp_path)
    suite = write_suite(tmp_path, {"a": sum_task(data, problems=7), "b": sum_task(data, problems=6)})
    scores = run_suite(request(tiny_model("olmo2"), suite, tmp_path / "out"))
    assert scores["a"].notes == ("6 rows, where the original has 7: the figure is not comparable",)
    assert scores["b"].notes == ()
