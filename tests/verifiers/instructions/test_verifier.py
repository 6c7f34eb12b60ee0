import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.verifiers.ifbench_cases import CUSTOM, FORMAT, WORDS
from tests.verifiers.ifeval_cases import CORE, TRAIN, Case
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.contract import GoldError
from tulu.verifiers.instructions.registry import INSTRUCTIONS, check_arguments
from tulu.verifiers.instructions.verifier import IFEVAL, IFEVAL_LOOSE, loose_variants

CASES: dict[str, list[Case]] = {**CORE, **TRAIN, **WORDS, **FORMAT, **CUSTOM}


def gold(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return {"instruction_id": [name], "kwargs": [values]}


def test_all_112_ids_have_two_texts_of_either_kind() -> None:
    assert (len(CORE), len(TRAIN), len(WORDS) + len(FORMAT) + len(CUSTOM)) == (25, 29, 58)
    assert set(CASES) == set(INSTRUCTIONS)
    for name, cases in CASES.items():
        assert sum(len(followed) for _, followed, _ in cases) >= 2, name
        assert sum(len(broken) for _, _, broken in cases) >= 2, name


@pytest.mark.parametrize("name", sorted(CASES))
def test_instruction(name: str) -> None:
    for values, followed, broken in CASES[name]:
        for expected, texts in ((1.0, followed), (0.0, broken)):
            for text in texts:
                assert IFEVAL(text, gold(name, values)).score == expected, (values, text[:200])


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_text_makes_an_instruction_fail(name: str) -> None:
    values = check_arguments(name, INSTRUCTIONS[name], CASES[name][0][0])
    for text in ("", " ", "\n\n", "\ud800", "\x00", "." * 500, "*" * 500, '"' * 500, "<" * 500, "[" * 500, "İ" * 9, "1" * 5000):
        for mode in ("strict", "tulu3"):
            verdict = IFEVAL(text, gold(name, values), mode)
            assert verdict.status == "ok", (mode, text[:20], verdict)
            assert verdict.score == 0 or text.strip()


def test_score_is_the_share_of_instructions() -> None:
    truth = {"instruction_id": ["punctuation:no_comma", "startend:quotation"], "kwargs": [None, {}]}
    verdict = IFEVAL("no comma", truth)
    assert (verdict.score, verdict.detail) == (0.5, "1/2, not startend:quotation")


@pytest.mark.parametrize(
    "wrap",
    [lambda truth: truth, json.dumps, str, lambda truth: [truth], lambda truth: str([truth]), lambda truth: [json.dumps(truth)]],
)
def test_every_spelling_of_a_ground_truth(wrap: Any) -> None:
    truth = wrap(
        {"instruction_id": ["length_constraints:number_words"], "kwargs": [{"num_words": 2.0, "relation": "at least", "N": None}]}
    )
    assert IFEVAL("one two", truth).score == 1
    assert IFEVAL("one two", truth, "tulu3").score == 1
    assert IFEVAL("one", truth).score == 0


@pytest.mark.parametrize(
    ("truth", "told"),
    [
        ({"instruction_id": ["punctuation:no_coma"], "kwargs": [{}]}, "did you mean punctuation:no_comma"),
        ({"instruction_id": [], "kwargs": []}, "non-empty"),
        ([], "no instructions"),
        ("[", "neither JSON"),
        (3, "objects"),
        ({"instruction_id": ["count:numbers"], "kwargs": [{}]}, "missing argument N"),
        ({"instruction_id": ["count:numbers"], "kwargs": [{"N": 2.5}]}, "cannot be 2.5"),
        ({"instruction_id": ["count:numbers"], "kwargs": [{"N": 2, "M": 3}]}, "unknown argument M"),
        ({"instruction_id": ["count:numbers"], "kwargs": []}, "a list of 1 kwargs"),
        ({"instruction_id": ["language:response_language"], "kwargs": [{"language": "klingon"}]}, "klingon"),
        (gold("keywords:frequency", {"keyword": "a", "frequency": 1, "relation": "around"}), "around"),
    ],
)
def test_bad_truths_are_refused_when_data_is_loaded(truth: Any, told: str) -> None:
    with pytest.raises(GoldError, match=told):
        IFEVAL.check(truth)


def test_thinking_is_not_graded() -> None:
    truth = gold("punctuation:no_comma", {})
    assert IFEVAL("<think>a, b, c</think>none", truth).score == 1
    assert IFEVAL("<think>none", truth).score == 0


def test_loose_forgives_a_preamble_and_asterisks() -> None:
    truth = gold("startend:quotation", {})
    text = 'Sure, here it is:\n*"quoted"*\nHope that helps!'
    assert IFEVAL(text, truth).score == 0
    assert IFEVAL_LOOSE(text, truth).score == 1
    assert IFEVAL_LOOSE("nothing quoted", truth).score == 0
    assert len(loose_variants("a\nb\nc")) == 8


@pytest.mark.parametrize(
    ("name", "values", "text", "strict", "tulu3"),
    [
        ("language:response_language", {"language": "de"}, "12345 !!!", 0, 1),
        ("keywords:existence", {"keywords": ["a.c"]}, "abc", 0, 1),
        ("detectable_format:json_format", {}, "NaN", 0, 1),
        ("keywords:exclude_word_harder", {"keyword": "bad"}, "so bad!", 0, 1),
        ("keywords:palindrome", {}, "a b", 0, 1),
        ("count:counting_composition", {"n_sent": 1, "n_words": 3}, "A b.***C d.***E f.", 0, 1),
        ("count:count_increment_word", {"keyword1": "one", "keyword2": "two"}, "someone two two", 0, 1),
    ],
)
def test_where_upstream_reads_otherwise(name: str, values: dict[str, Any], text: str, strict: float, tulu3: float) -> None:
    assert IFEVAL(text, gold(name, values)).score == strict
    assert IFEVAL(text, gold(name, values), "tulu3").score == tulu3


def test_a_pattern_that_upstream_cannot_compile_is_a_masked_error_there() -> None:
    truth = gold("keywords:existence", {"keywords": ["f("]})
    assert IFEVAL("f(x)", truth, "tulu3").status == "error"
    assert IFEVAL("f(x)", truth).score == 1


def test_all_prompts_of_ifeval_and_ifbench_are_accepted_and_judged_the_same_twice(shared_data: Path) -> None:
    rows = [
        json.loads(line)
        for file in ("ifeval/input_data.jsonl", "ifbench/IFBench_test.jsonl")
        for line in (shared_data / file).open()
    ]
    assert len(rows) == 541 + 300
    items = []
    for row in rows:
        truth = {"instruction_id": row["instruction_id_list"], "kwargs": row["kwargs"]}
        IFEVAL.check(truth)
        items.append(
            (row["prompt"], Problem(str(row["key"]), [{"role": "user", "content": row["prompt"]}], (), truth, ("ifeval",)))
        )
    with Grader(2) as grader:
        first = grader.grade(items)
        random.seed(1)
        assert grader.grade(items) == first
    assert all(verdict.status == "ok" for verdict in first)
