# ruff: noqa: E501 (many short cases on a line)
"""Ground truths that make no sense: refused by one message, never by another exception, and never noticed only in training."""

import json
import os
import random
from typing import Any

import pytest

from tests.verifiers.families import FAMILIES, PROGRAMS
from tulu.verifiers.contract import Case, GoldError, grade_safely
from tulu.verifiers.registry import VERIFIERS

COUNT = int(os.environ.get("TULU_FUZZ_GOLDS", "200"))
"""Ground truths per family."""
ATOMS: tuple[Any, ...] = (
    None, True, 0, -1, 3.5, float("nan"), float("inf"), 10**400, "", "x", " ", "\ud800", "\x00", "[", "{", "[]", "{}", "NaN", "1",
    "[" * 5000, "(", [], {}, [[]], [{}], {"": None}, [None], [1], ["x"], {"x": {}}, "1e999999999", "9" * 5000, "\\boxed{}", "\\frac{1}{",
    "}{", "en", "B", "####", "[1,2", "('a',)", "{1:2}", "assert f()", "1+", "select 1", {"type": 5}, {"$ref": "#/x"}, {"$ref": "#"},
    {"pattern": "("}, {"func_name": ["x"]},
)  # fmt: skip
FIELDS = (
    "min max unit size times language sql db schema tests time_limit imports threshold tolerance kwargs func_name reference kind "
    "criteria weight answer choices pattern instruction_id N"
).split()
MORE: dict[str, list[Any]] = {
    "code": [{"tests": ["assert f(1) == 2"], "imports": ["import x"], "time_limit": 1, "threshold": 0.5}],
    "code_stdio": [{"tests": [{"input": "a", "output": "b"}], "tolerance": 0.1}],
    "ifeval": [{"instruction_id": ["ratio:overlap", "words:repeats"], "kwargs": [{"reference_text": "x", "percentage": 5}, {"small_n": 3}]}],
    "ifeval_old": [{"func_name": "validate_paragraphs", "N": 2, "first_word": "x", "i": 1}],
    "json_schema": [{"properties": {"a": {"pattern": "a+"}}, "$defs": {"x": {"type": "object"}}, "$ref": "#/$defs/x"}],
    "length": [{"min": 1, "max": 4, "unit": "words"}],
    "max_length": [5],
    "multiple_choice": [{"answer": "B", "choices": ["a", "b"]}],
    "rubric": [[{"criterion": "x", "weight": 2}]],
    "sciriff": [{"kind": "entities", "reference": {"a": ["b"]}}, {"kind": "label", "reference": {"verdict": "x", "evidence": ["a"]}}],
    "sql": [{"sql": "select 1", "db": "nowhere.db"}],
    "zebra_logic": [{"header": ["House", "Name"], "rows": [["1", "Ann"]]}],
}  # fmt: skip
NOT_GRADED = {
    "code",
    "code_stdio",
    "llm_judge",
    "rubric",
    "general-quality",
    "general-quality_ref",
    "reward_model",
    "reasoning_gym",
}
"""Families whose verdicts cost too much here or are tested elsewhere; the checks of their ground truths take part."""


def damaged(gold: Any, draw: random.Random) -> Any:
    """A ground truth with something in it replaced, added or left out."""
    if isinstance(gold, dict) and draw.random() < 0.75:
        gold = dict(gold)
        kind = draw.random()
        if kind < 0.3 and gold:
            gold.pop(draw.choice(list(gold)))
        elif kind < 0.5 or not gold:
            gold[draw.choice(FIELDS)] = draw.choice(ATOMS)
        else:
            key = draw.choice(list(gold))
            gold[key] = damaged(gold[key], draw)
        return gold
    if isinstance(gold, list) and gold and draw.random() < 0.75:
        at = draw.randrange(len(gold))
        return [*gold[:at], damaged(gold[at], draw), *gold[at + 1 :]]
    return draw.choice(ATOMS)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_a_bad_ground_truth_is_one_message(name: str) -> None:
    known, draw = {**FAMILIES, **PROGRAMS}, random.Random(1)
    golds = [*([known[name][0]] if name in known else [None]), *MORE.get(name, ())]
    completion = known[name][1] if name in known else "x"
    for _ in range(COUNT):
        gold = damaged(draw.choice(golds), draw)
        if draw.random() < 0.2:
            gold = json.dumps(gold)
        try:
            VERIFIERS[name].check(gold)
        except GoldError:
            continue
        if name in NOT_GRADED:
            continue
        verdict = grade_safely(VERIFIERS[name].strict, Case(completion, gold, "?", {"completion_tokens": 3}))
        assert verdict.status == "ok", (gold, verdict)
