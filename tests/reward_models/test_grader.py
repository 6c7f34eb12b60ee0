"""A reward model in a verifier's place: against transformers one row at a time, and what it cannot score."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tulu.config.schema import RewardModelSettings
from tulu.errors import DataError, RecipeError
from tulu.evaluation.best_of import pick
from tulu.reward_models.choose_scorer import load_reward_model
from tulu.reward_models.grader import RewardGrader, make_item
from tulu.reward_models.items import Item, Scored, text
from tulu.types import Message, Problem, Verdict


def problem(*turns: str, **row: Any) -> Problem:
    roles = ("user", "assistant")
    messages: list[Message] = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return Problem("rows.jsonl:1", messages, (), None, ("reward_model",), row)


def grader(path: Path, **fields: Any) -> RewardGrader:
    return RewardGrader.load(RewardModelSettings(path=str(path), **fields))


def oracle(path: Path, question: Problem, answer: str) -> float:
    """transformers' own score of one conversation, alone in a batch of one."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path)
    chat: list[Any] = [*question.messages, {"role": "assistant", "content": answer}]
    tokens = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        return float(model(**tokens).logits[0, 0])


@pytest.mark.parametrize("row_tokens", [64, 8192])
def test_scores_are_transformers_whatever_is_scored_beside_them(tiny_reward_model: Callable[..., Path], row_tokens: int) -> None:
    path = tiny_reward_model("olmo2")
    first, second = problem("one?"), problem("a long question, really", "an answer", "and another?")
    items = [("yes", first), ("no, not at all", first), ("", first), ("maybe", second), ("x" * 40, second), ("yes", first)]
    verdicts = grader(path, row_tokens=row_tokens).grade(items)
    assert [verdict.status for verdict in verdicts] == ["ok"] * 6
    assert [verdict.score for verdict in verdicts] == pytest.approx(
        [oracle(path, question, text) for text, question in items], abs=1e-5
    )
    assert verdicts[0].score == pytest.approx(verdicts[5].score, abs=1e-5)


def test_what_follows_the_thinking_is_scored_unless_the_row_asks_for_all(tiny_reward_model: Callable[..., Path]) -> None:
    reward_model = grader(tiny_reward_model("olmo2"))
    plain, all_of_it = problem("one?"), problem("one?", grade_thinking=True)
    verdicts = reward_model.grade(
        [("<think>hm</think>yes", plain), ("yes", plain), ("<think>hm</think>yes", all_of_it), ("hmyes", plain)]
    )
    assert verdicts[0].score == pytest.approx(verdicts[1].score, abs=1e-6)
    assert verdicts[2].score == pytest.approx(verdicts[3].score, abs=1e-6)


def test_a_conversation_too_long_to_read_is_masked_and_not_cut(tiny_reward_model: Callable[..., Path]) -> None:
    path, question = tiny_reward_model("olmo2"), problem("one?")
    reward_model = grader(path, max_length=64)
    long, short = reward_model.grade([("x" * 100, question), ("yes", question)])
    assert (long.score, long.status) == (None, "error")
    # "<|user|>\\none?\\n<|assistant|>\\n" are 28 bytes, and EOS ends the turn.
    assert long.detail == "a conversation of 129 tokens, and the reward model reads 64"
    assert short.score == pytest.approx(oracle(path, question, "yes"), abs=1e-5)


class Lengths:
    """A scorer that says how long an answer is: no number for `nan`, and a template that refuses `bad`."""

    settings: Mapping[str, Any] = {"weights": "none"}

    def __init__(self) -> None:
        self.calls: list[int] = []

    def score(self, items: Sequence[Item]) -> list[Scored]:
        self.calls.append(len(items))
        texts = [[text(answer) for answer in item.answers] for item in items]
        if any("bad" in row for row in texts):
            raise DataError("the template refuses it")
        return [
            item.scored(
                [math.nan if answer == "nan" else float(len(answer)) for answer in row],
                details={"tokens": [1] * len(row), "cut": [0] * len(row)},
            )
            for item, row in zip(items, texts, strict=True)
        ]

    def close(self) -> None:
        pass


def test_faults_are_masked_one_by_one_and_everything_is_scored_at_once() -> None:
    scorer = Lengths()
    reward_model = RewardGrader(scorer)
    first, second, third = problem("1"), problem("2"), problem("3")
    assert reward_model.grade([("nan", first), ("four", first), ("12", second)]) == [
        Verdict(None, "error", "the reward model's score is nan"),
        Verdict(4.0),
        Verdict(2.0),
    ]
    assert scorer.calls == [2], "one pass, a prompt's completions together"
    refused = reward_model.grade([("a", first), ("bad", second), ("ccc", third)])
    assert [verdict.score for verdict in refused] == [1.0, None, 3.0]
    assert refused[1].detail == "the template refuses it"
    assert reward_model.grade([]) == []


def test_a_reward_model_scores_the_answers_to_several_prompts(tiny_reward_model: Callable[..., Path]) -> None:
    scorer = load_reward_model(tiny_reward_model("olmo2"))
    items = [make_item(problem("Q").messages, ["one", "two", "three"]), make_item(problem("Another").messages, ["yes"])]
    scored = scorer.score(items)
    assert [len(row.scores) for row in scored] == [3, 1]
    assert pick(scored[0].scores) == max(range(3), key=lambda index: scored[0].scores[index])
    assert pick(scored[1].scores) == 0
    assert not any(row.details["cut"][0] for row in scored)
    alone = [scorer.score([make_item(problem("Q").messages, [text])])[0].scores[0] for text in ("one", "two", "three")]
    assert scored[0].scores == pytest.approx(alone, abs=1e-5)
    shorter = load_reward_model(tiny_reward_model("olmo2"), max_length=12).score(items)[0]
    assert all(shorter.details["cut"])


def test_what_is_no_reward_model_is_named(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no reward model: its config\.json says Olmo2ForCausalLM; train one with tulu rm"):
        grader(tiny_model("olmo2"))
    with pytest.raises(RecipeError, match=r"nothing in .*rm/model yet; run `tulu rm` first"):
        RewardGrader.load(RewardModelSettings(), tmp_path / "rm" / "model")
