"""Judges: language models that are asked which answer is better, or how good each is."""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tulu.errors import RecipeError
from tulu.reward_models.items import Answer, Item
from tulu.reward_models.judge_prompts import (
    MAX_ANSWERS,
    UNPARSABLE,
    names_several,
    parse_choice,
    parse_rating,
    ranking_messages,
    rating_credit,
    rating_messages,
)
from tulu.reward_models.rewardbench import JudgeMode, Options
from tulu.reward_models.scorers import ScoredAnswers, Scorer
from tulu.reward_models.sections import TIES, Data
from tulu.types import Message

REPLY_TOKENS: Mapping[JudgeMode, int] = {"pairwise": 2048, "ranking": 2048, "ratings": 1024}


class Responder(Protocol):
    """A chat model: greedy replies to conversations, in order; None where the model refuses a conversation (too long)."""

    settings: dict[str, Any]

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One call to the judge: what it is shown, and which answer stands in which place."""

    messages: list[Message]
    places: tuple[int, ...]
    """Index of the answer shown at A, B, …; for ratings the one answer."""


def make_judge(model: str, data: Data, options: Options) -> Scorer:
    """The judge behind an endpoint, or a model that is run here."""
    if options.endpoint is not None:
        from tulu.reward_models.endpoint import Endpoint

        return JudgeScorer(Endpoint(options.endpoint, model, options.api_key_env), data, options)
    from tulu.reward_models.local_judge import LocalJudge

    return JudgeScorer(LocalJudge(model, options), data, options)


class JudgeScorer:
    """Credits by a judge's verdicts. Unreadable verdicts get the credit of a guess and are counted."""

    def __init__(self, responder: Responder, data: Data, options: Options) -> None:
        self.responder = responder
        self.data = data
        self.mode = options.judge_mode
        self.seed = options.seed
        self.both_orders = options.both_orders
        self.max_tokens = options.judge_tokens
        self.settings = {
            "kind": "judge",
            "mode": options.judge_mode or "auto",
            "both_orders": options.both_orders,
            # With every order judged the seed decides nothing.
            "order_seed": None if options.both_orders else options.seed,
            "judge_tokens": options.judge_tokens,
            "prompts": _prompts_hash(),
            **responder.settings,
        }

    def close(self) -> None:
        """Free the judge."""
        self.responder.close()

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]:
        """Verdicts of a chunk of items; EngineError if the judge cannot be reached."""
        asked = [self.questions(item) for item in items]
        replies: list[list[str | None]] = [[] for _ in items]
        for mode in REPLY_TOKENS:
            # One call for all questions of a mode, so that the judge answers them side by side.
            own = [index for index, item in enumerate(items) if self.mode_of(item) == mode]
            chats = [question.messages for index in own for question in asked[index]]
            answers = iter(self.responder.replies(chats, self.max_tokens or REPLY_TOKENS[mode]))
            for index in own:
                replies[index] = [next(answers) for _ in asked[index]]
        return [
            self._rated(item, found) if self.mode_of(item) == "ratings" else self._ranked(item, questions, found)
            for item, questions, found in zip(items, asked, replies, strict=True)
        ]

    def mode_of(self, item: Item) -> JudgeMode:
        """How an item is judged; RecipeError where the mode asked for cannot judge it."""
        if len(item.chosen) > 1 or self._of_ties(item):
            # Several right answers have no single best one.
            return "ratings"
        count = len(item.answers)
        mode = self.mode or ("pairwise" if count == 2 else "ranking")
        if (mode == "pairwise" and count != 2) or (mode == "ranking" and count > MAX_ANSWERS):
            raise RecipeError(f"--judge-mode {mode}: {item.where or item.id} has {count} answers; use --judge-mode ratings")
        return mode

    def _of_ties(self, item: Item) -> bool:
        return self.data == "v2" and item.subset == TIES

    def questions(self, item: Item) -> list[Question]:
        """The calls an item needs: one in a seeded order, or one for every place of the right answer."""
        answers = item.answers
        if self.mode_of(item) == "ratings":
            ties = self._of_ties(item)
            return [Question(rating_messages(item.prompt, answer, ties), (index,)) for index, answer in enumerate(answers)]
        slots = range(len(answers)) if self.both_orders else [self._slot(item)]
        return [_ask(item.prompt, answers, slot) for slot in slots]

    def _slot(self, item: Item) -> int:
        """Where the right answer stands: drawn from the seed and the item alone, whatever else is evaluated."""
        return random.Random(f"{self.seed}|{item.subset}|{item.id}").randrange(len(item.answers))

    def _ranked(self, item: Item, questions: Sequence[Question], replies: Sequence[str | None]) -> ScoredAnswers:
        count = len(item.answers)
        details = _details(replies)
        if any(reply is None for reply in replies):
            return ScoredAnswers((float("nan"),) * count, None, details)
        shares = [0.0] * count
        for question, reply in zip(questions, replies, strict=True):
            choice = parse_choice(reply or "", count)
            details["unparsable"] += choice is None
            details["several_named"] += names_several(reply or "", count)
            for place, answer in enumerate(question.places):
                shares[answer] += (1 / count if choice is None else float(place == choice)) / len(questions)
        details["places"] = [list(question.places) for question in questions]
        return ScoredAnswers(tuple(shares), shares[0], details)

    def _rated(self, item: Item, replies: Sequence[str | None]) -> ScoredAnswers:
        details = _details(replies)
        ratings = tuple(float("nan") if reply is None else parse_rating(reply) for reply in replies)
        details["unparsable"] = sum(rating == UNPARSABLE for rating in ratings)
        if len(item.chosen) > 1 or self._of_ties(item) or any(reply is None for reply in replies):
            return ScoredAnswers(ratings, None, details)
        return ScoredAnswers(ratings, rating_credit(ratings), details)


def _ask(prompt: Sequence[Message], answers: Sequence[Answer], slot: int) -> Question:
    """The right answer swapped into a slot, the others where they are."""
    places = list(range(len(answers)))
    places[0], places[slot] = places[slot], places[0]
    return Question(ranking_messages(prompt, [answers[place] for place in places]), tuple(places))


def _details(replies: Sequence[str | None]) -> dict[str, Any]:
    return {"judgements": len(replies), "unparsable": 0, "several_named": 0, "replies": list(replies)}


def _prompts_hash() -> str:
    """Changes when the wording of the prompts does."""
    question: list[Message] = [{"role": "user", "content": "Q"}]
    answers: list[Answer] = [({"role": "assistant", "content": letter},) for letter in "AB"]
    probes = [ranking_messages(question, answers), ranking_messages(question * 3, answers)]
    probes += [rating_messages(question, answers[0], ties) for ties in (False, True)]
    return hashlib.sha256(repr(probes).encode()).hexdigest()[:16]
