"""Made-up rows are rows that the stages read, and every answer beside a gold is right."""

import json
from importlib.util import find_spec
from typing import Any

import pytest

from tulu.config.made_up import ProblemForm, problem_form
from tulu.config.tiny_section import MadeUpRows
from tulu.data.formats import parse_conversation, parse_problem, parse_text
from tulu.data.made_up import answers, golds, made_up_rows
from tulu.data.preferences import parse_preference
from tulu.data.sources import Row
from tulu.verifiers.proof import STATED
from tulu.verifiers.registry import VERIFIERS, check_gold, find

WITHOUT_GOLDS = {"reward_model", *(() if find_spec("reasoning_gym") else ("reasoning_gym",))}


def read(rows: list[dict[str, Any]]) -> list[Row]:
    """The rows as a file gives them back."""
    return [Row(f"made-up.jsonl:{index}", json.loads(json.dumps(row))) for index, row in enumerate(rows, 1)]


@pytest.mark.parametrize("name", sorted(set(VERIFIERS) - WITHOUT_GOLDS))
def test_every_verifier_can_use_its_golds(name: str) -> None:
    assert golds(name)
    for gold in golds(name):
        check_gold(name, gold.truth)


@pytest.mark.parametrize("name", sorted((set(STATED) | {"ifeval", "ifeval_old", "ifeval_loose"}) - WITHOUT_GOLDS))
def test_the_answer_to_a_gold_is_right_and_those_to_others_are_not_all(name: str) -> None:
    verifier, all_golds = find(name), golds(name)
    for gold in all_golds:
        assert verifier(gold.answer, gold.truth, prompt=gold.question).score == 1
        # What a tiny model samples holds more than the answer.
        assert len({verifier(other.answer, gold.truth, prompt=gold.question).score for other in all_golds}) > 1


@pytest.mark.parametrize("mode", ["tulu3", "tulu3-2024"])
@pytest.mark.parametrize("name", ["gsm8k", "math", "ifeval_func"])
def test_the_answers_are_right_in_the_modes_of_the_releases(name: str, mode: Any) -> None:
    verifier = find("ifeval" if name == "ifeval_func" else name)
    assert [verifier(gold.answer, gold.truth, mode, gold.question).score for gold in golds(name)] == [1.0] * len(golds(name))


@pytest.mark.parametrize(
    "source",
    [
        "allenai/RLVR-GSM-MATH-IF-Mixed-Constraints",
        "allenai/Dolci-Think-RL-7B",
        "hamishivi/rlvr_acecoder_filtered_filtered",
        "someone/rows",
    ],
)
def test_problems_are_read_with_a_truth_for_each_verifier(source: str) -> None:
    form = problem_form(source)
    rows = read(made_up_rows(MadeUpRows("rlvr-0.jsonl", "rlvr", 10, form)))
    problems = [parse_problem(row, None) for row in rows]
    named = {"ifeval" if name == "ifeval_func" else name for name in form.verifiers}
    assert {name for problem in problems for name in problem.verifiers} == named
    for problem in problems:
        check_gold(problem.verifiers[0], problem.ground_truth)
    assert all((form.prompt in row.columns) and isinstance(row.columns["dataset"], list) == form.lists for row in rows)


def test_conversations_pairs_and_texts_are_read() -> None:
    chats = [parse_conversation(row) for row in read(made_up_rows(MadeUpRows("sft-0.jsonl", "sft", 12)))]
    assert {sum(message["role"] == "assistant" for message in chat.messages) for chat in chats} == {1, 2, 3}
    assert any(chat.messages[0]["role"] == "system" for chat in chats)
    for row in read(made_up_rows(MadeUpRows("dpo-0.jsonl", "pairs", 6))):
        pair = parse_preference(row)
        assert pair.chosen[0][:-1] == pair.rejected[0][:-1]
        assert pair.chosen[0][-1] != pair.rejected[0][-1]
    assert all(parse_text(row) for row in read(made_up_rows(MadeUpRows("base-0.jsonl", "text", 4))))


def test_rows_are_the_same_in_every_run_and_differ_between_files() -> None:
    rows = MadeUpRows("sft-0.jsonl", "sft", 5)
    assert made_up_rows(rows) == made_up_rows(rows)
    assert made_up_rows(rows) != made_up_rows(MadeUpRows("sft-1.jsonl", "sft", 5))


def test_the_answers_of_several_data_sets_come_once() -> None:
    both = [ProblemForm(("gsm8k", "math")), ProblemForm(("math",))]
    assert answers(both) == [gold.answer for name in ("gsm8k", "math") for gold in golds(name)]
