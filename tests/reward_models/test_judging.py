"""Verdicts to credits: seeded order, both orders, unreadable and refused replies."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tulu.config.positions import usual_answer
from tulu.errors import RecipeError
from tulu.reward_models.items import Item
from tulu.reward_models.judging import JudgeScorer
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.responders import LocalJudge
from tulu.reward_models.rewardbench import run
from tulu.reward_models.sections import Data, summarize
from tulu.types import Message


def item(key: str, chosen: list[str], rejected: list[str], subset: str = "x") -> Item:
    def say(texts: list[str]) -> tuple[tuple[Message, ...], ...]:
        return tuple(({"role": "assistant", "content": text},) for text in texts)

    return Item(key, subset, ({"role": "user", "content": f"Q{key}"},), say(chosen), say(rejected), f"f:{key}")


class ScriptedJudge:
    """Answers every conversation by a rule on its last message."""

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        self.rule = rule
        self.settings: dict[str, Any] = {"backend": "scripted"}
        self.shown: list[str] = []
        self.asked: set[int] = set()
        self.positions = 1 << 20

    def usual_tokens(self, usual: int) -> int:
        return usual_answer(usual, self.positions)

    def close(self) -> None:
        return

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        self.shown += [chat[-1]["content"] for chat in chats]
        self.asked |= {max_tokens} if chats else set()
        return [self.rule(chat[-1]["content"]) for chat in chats]


def longest(shown: str) -> str:
    """A judge without position bias: it names the longest answer."""
    parts = {letter: shown.split(f"Assistant {letter}'s Answer]")[1] for letter in "ABCD" if f"Assistant {letter}'s" in shown}
    return f"[[{max(parts, key=lambda letter: len(parts[letter]))}]]"


def credits(rule: Callable[[str], str | None], items: list[Item], data: Data = "free", **options: Any) -> list[float | None]:
    return [found.credit for found in JudgeScorer(ScriptedJudge(rule), data, RewardBenchOptions(**options)).score(items)]


PAIRS = [item(str(k), ["good answer"], ["bad"]) for k in range(40)]
FOURS = [item(str(k), ["the good answer"], ["a", "b", "c"]) for k in range(40)]


@pytest.mark.parametrize("items", [PAIRS, FOURS])
def test_a_fair_judge_is_right_in_any_order(items: list[Item]) -> None:
    assert credits(longest, items) == [1.0] * 40
    assert credits(longest, items, both_orders=True) == pytest.approx([1.0] * 40)


def test_a_biased_judge_shows_its_bias_by_seed_and_loses_it_by_both_orders() -> None:
    seeded = credits(lambda _: "[[A]]", PAIRS, seed=1)
    assert 8 < sum(credit or 0 for credit in seeded) < 32
    assert seeded == credits(lambda _: "[[A]]", PAIRS, seed=1)
    assert seeded != credits(lambda _: "[[A]]", PAIRS, seed=2)
    assert seeded[7:9] == credits(lambda _: "[[A]]", PAIRS[7:9], seed=1)
    for seed in (1, 2):
        assert credits(lambda _: "[[A]]", PAIRS, seed=seed, both_orders=True) == [0.5] * 40
        assert credits(lambda _: "[[C]]", FOURS, seed=seed, both_orders=True) == [0.25] * 40


def test_every_slot_is_tried_once() -> None:
    judge = ScriptedJudge(longest)
    scorer = JudgeScorer(judge, "free", RewardBenchOptions(both_orders=True))
    found = scorer.score(FOURS[:1])[0]
    assert [places.index(0) for places in found.details["places"]] == [0, 1, 2, 3]
    assert len(set(judge.shown)) == 4


def test_unreadable_verdicts_get_a_guess() -> None:
    assert credits(lambda _: "no idea", PAIRS[:1]) == [0.5]
    assert credits(lambda _: "no idea", FOURS[:1]) == [0.25]
    assert credits(lambda _: "no idea", PAIRS[:1], judge_mode="ratings") == [0.5]
    found = JudgeScorer(ScriptedJudge(lambda _: "?"), "free", RewardBenchOptions(both_orders=True)).score(PAIRS[:1])[0]
    assert (found.details["judgements"], found.details["unparsable"]) == (2, 2)


def test_refused_conversations_are_missing_not_wrong_silently() -> None:
    found = JudgeScorer(ScriptedJudge(lambda _: None), "free", RewardBenchOptions()).score(PAIRS[:1])[0]
    scored = PAIRS[0].scored(found.scores, found.credit)
    assert scored.missing
    assert summarize([scored], "free").missing == 1


def test_ratings() -> None:
    def rate(shown: str) -> str:
        return "8" if "good" in shown else "3"

    assert credits(rate, [*PAIRS[:1], *FOURS[:1]], judge_mode="ratings") == [1.0, 1.0]


def test_ties_are_rated_and_go_to_the_formula() -> None:
    items = [item("ref:1", ["good"], ["bad", "none"], "Ties"), item("tied:1", ["good", "good too"], ["bad"], "Ties")]

    def rate(shown: str) -> str:
        return "9" if "good" in shown else "3" if "bad" in shown else "?"

    found = JudgeScorer(ScriptedJudge(rate), "v2", RewardBenchOptions(judge_mode="ranking")).score(items)
    assert [one.scores for one in found] == [(9.0, 3.0, -1.0), (9.0, 9.0, 3.0)]
    scored = [one.scored(result.scores, result.credit) for one, result in zip(items, found, strict=True)]
    assert summarize(scored, "v2").score == pytest.approx(1.01)


def test_pairwise_refuses_lists() -> None:
    with pytest.raises(RecipeError, match="f:0 has 4 answers"):
        credits(longest, FOURS, judge_mode="pairwise")


def test_local_judge_runs_end_to_end(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Q{k}", "chosen": "yes", "rejected": "no"}) + "\n" for k in range(3)))
    model = str(tiny_model("olmo2", 0, max_position_embeddings=4096))
    options = RewardBenchOptions(
        kind="judge", judge_tokens=4, engine="transformers", both_orders=True, out=tmp_path / "out", json_output=True
    )
    out = run(model, str(path), None, options)
    assert out is not None
    results = json.loads((out / "results.json").read_text())
    assert results["score"] == 0.5
    assert (results["counts"]["judgements"], results["counts"]["unparsable"]) == (6, 6)
    assert results["settings"]["backend"] == "local"
    assert any("could not be parsed" in note for note in results["notes"])


@pytest.mark.parametrize(
    ("positions", "options", "asked"),
    [(1 << 20, {}, 2048), (8192, {}, 2048), (4000, {}, 2000), (512, {}, 256), (512, {"judge_tokens": 300}, 300)],
)
def test_replies_fit_what_the_judge_reads(positions: int, options: dict[str, Any], asked: int) -> None:
    judge = ScriptedJudge(longest)
    judge.positions = positions
    JudgeScorer(judge, "free", RewardBenchOptions(**options)).score(PAIRS)
    assert judge.asked == {asked}


def test_a_number_that_the_local_judge_has_no_room_for_is_refused(tiny_model: Callable[..., Path]) -> None:
    options = RewardBenchOptions(kind="judge", judge_tokens=512, engine="transformers")
    with pytest.raises(RecipeError, match="--judge-tokens 512: the judge reads 512 tokens, for question and reply; lower it"):
        LocalJudge(str(tiny_model("olmo2", 0)), options)
    judge = LocalJudge(str(tiny_model("olmo2", 0)), RewardBenchOptions(kind="judge", engine="transformers"))
    assert judge.usual_tokens(2048) == 256
    judge.close()
