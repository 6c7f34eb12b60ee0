"""Planted leaks are found, by the share that one training row covers, and nothing else is."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu.config.schema import Source
from tulu.config.stages import RowKind
from tulu.data.decontaminate import Index, index_of, matches, searched_turns, tokens_of
from tulu.data.sources import Row
from tulu.errors import DataError

QUESTION = "Janet sells sixteen eggs a day and eats three for breakfast , how many dollars does she make"
WORDS = QUESTION.split()


def words(start: int, end: int) -> str:
    return " ".join(WORDS[start:end])


def test_tokens_are_words_and_marks_in_lower_case() -> None:
    assert tokens_of("How much is 3+4, Élise?") == ["how", "much", "is", "3", "+", "4", ",", "élise", "?"]


@pytest.mark.parametrize(
    ("turns", "share"),
    [
        ([f"Please answer: {QUESTION}?"], 1.0),
        ([QUESTION.upper()], 1.0),
        # 18 tokens: 9 of them are half, and more than half is needed.
        ([words(0, 10)], 10 / 18),
        ([words(0, 9)], None),
        ([words(0, 8)], None),
        # Two stretches of 8 and 9 of one row count together,
        ([f"{words(0, 8)} and then {words(9, 18)}"], 17 / 18),
        ([words(0, 8), words(9, 18)], 17 / 18),
        # but stretches below 8 do not count at all.
        ([f"{words(0, 7)} x {words(7, 14)} x {words(14, 18)}"], None),
        (["something else entirely, which has nothing to do with eggs or breakfast at all"], None),
    ],
)
def test_coverage_by_one_row(turns: list[str], share: float | None) -> None:
    assert len(tokens_of(QUESTION)) == 18
    found = Index([("held:1", [QUESTION]), ("held:2", ["quite another question that nobody ever asked in any row"])]).search(
        "row", turns
    )
    assert [(match.problem, match.share) for match in found] == ([] if share is None else [("held:1", share)])


def test_coverage_is_of_single_rows_not_of_all_together() -> None:
    index = Index([("held", [QUESTION])])
    rows = [Row("a", {"prompt": words(0, 8), "completion": "x"}), Row("b", {"prompt": words(9, 17), "completion": "x"})]
    assert matches(index, rows, "sft") == []


def test_short_questions_must_occur_whole_and_very_short_ones_are_named() -> None:
    index = Index([("held:1", ["347+285=?"]), ("held:2", ["why?"])])
    assert index.too_short == ["held:2"]
    assert [match.share for match in index.search("row", ["What is 347+285=? Say it."])] == [1.0]
    assert index.search("row", ["347+285=632"]) == []


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("sft", {"prompt": QUESTION, "completion": "x"}),
        ("pairs", {"prompt": QUESTION, "chosen": "x", "rejected": "y"}),
        ("pairs", {"prompt": QUESTION, "chosen": ["x", "z"], "rejected": ["x", "y"]}),
        ("rlvr", {"question": QUESTION, "answer": "#### 3"}),
        ("rlvr", {"prompt": QUESTION, "ground_truth": "3"}),
        ("text", {"text": f"{QUESTION} and more"}),
    ],
)
def test_leaks_are_found_in_every_kind_of_row(kind: RowKind, columns: dict[str, Any]) -> None:
    [match] = matches(Index([("held", [QUESTION])]), [Row("row", columns)], kind)
    assert (match.row, match.share) == ("row", 1.0)


def test_answers_and_unusable_rows_are_not_searched() -> None:
    assert searched_turns(Row("row", {"prompt": "q", "completion": QUESTION}), "sft") == ["q"]
    assert searched_turns(Row("row", {"messages": []}), "sft") == []


def test_every_row_that_leaks_is_listed() -> None:
    rows = [Row(f"row:{number}", {"prompt": QUESTION, "completion": "x"}) for number in range(500)]
    assert len(matches(Index([("held", [QUESTION])]), rows, "sft")) == 500


def test_n_and_threshold_can_be_set() -> None:
    row = [words(0, 4)]
    assert Index([("held", [QUESTION])], n=4, threshold=0.2).search("row", row)[0].share == 4 / 18
    assert Index([("held", [QUESTION])], n=4, threshold=0.3).search("row", row) == []


def test_questions_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text(json.dumps({"prompt": QUESTION, "entry_point": "x"}) + "\n")
    assert index_of([Source(name=str(tmp_path / "held.jsonl"), fraction=1.0)]).ids == [f"{tmp_path}/held.jsonl:1"]
    (tmp_path / "short.jsonl").write_text(json.dumps({"prompt": "hi"}) + "\n")
    with pytest.raises(DataError, match="no question of 4 words or more"):
        index_of([Source(name=str(tmp_path / "short.jsonl"), fraction=1.0)])
