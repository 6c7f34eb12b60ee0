"""Judges: language models that say which answer is best, or rate every answer."""

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
from tulu.reward_models.options import JudgeMode, RewardBenchOptions
from tulu.reward_models.scorers import ScoredAnswers, Scorer
from tulu.reward_models.sections import TIES, Data
from tulu.types import Message

REPLY_TOKENS: Mapping[JudgeMode, int] = {"pairwise": 2048, "ranking": 2048, "ratings": 1024}
"""Most tokens of a reply where --judge-tokens does not say."""


class Responder(Protocol):
    """A chat model that replies to conversations."""

    settings: dict[str, Any]
    """What the replies depend on."""

    def replies(self, chats: Sequence[Sequence[Message]], max_tokens: int) -> list[str | None]:
        """Greedy replies, in order; None for a conversation that is too long for the model."""

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call to the judge."""

    messages: list[Message]
    """The conversation that the judge replies to."""
    places: tuple[int, ...]
    """Indices of the answers that are shown as A, B, …; a rating shows one."""


def load_judge(model: str, data: Data, options: RewardBenchOptions) -> Scorer:
    """A judge behind an endpoint, or one that is run on this machine."""
    if options.endpoint is not None:
        from tulu.reward_models.endpoint import EndpointJudge

        return JudgeScorer(EndpointJudge(options.endpoint, model, options.api_key_env), data, options)
    from tulu.reward_models.local_judge import LocalJudge

    return JudgeScorer(LocalJudge(model, options), data, options)


class JudgeScorer:
    """Gives items the credit of a judge's verdicts; a verdict that cannot be read has the credit of a guess and is counted."""

    def __init__(self, responder: Responder, data: Data, options: RewardBenchOptions) -> None:
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
            # Where every order is shown, the seed decides nothing.
            "order_seed": None if options.both_orders else options.seed,
            "judge_tokens": options.judge_tokens,
            "prompts": _prompts_hash(),
            **responder.settings,
        }

    def close(self) -> None:
        """Free the judge."""
        self.responder.close()

    def score(self, items: Sequence[Item]) -> list[ScoredAnswers]:
        """Credits and scores of items. Raises EngineError if the judge cannot be reached."""
        questions = [self.questions(item) for item in items]
        replies: list[list[str | None]] = [[] for _ in items]
        for mode in REPLY_TOKENS:
            # One call holds all questions of a mode, so that the judge answers them side by side.
            indices = [index for index, item in enumerate(items) if self.mode_of(item) == mode]
            chats = [question.messages for index in indices for question in questions[index]]
            remaining = iter(self.responder.replies(chats, self.max_tokens or REPLY_TOKENS[mode]))
            for index in indices:
                replies[index] = [next(remaining) for _ in questions[index]]
        return [
            self._read_ratings(item, texts) if self.mode_of(item) == "ratings" else self._read_choices(item, asked, texts)
            for item, asked, texts in zip(items, questions, replies, strict=True)
        ]

    def mode_of(self, item: Item) -> JudgeMode:
        """The mode in which an item is judged. Raises RecipeError where --judge-mode cannot judge it."""
        # Several right answers have no single best one.
        if len(item.chosen) > 1 or self._is_of_ties(item):
            return "ratings"
        count = len(item.answers)
        mode = self.mode or ("pairwise" if count == 2 else "ranking")
        if (mode == "pairwise" and count != 2) or (mode == "ranking" and count > MAX_ANSWERS):
            raise RecipeError(f"--judge-mode {mode}: {item.where or item.id} has {count} answers; use --judge-mode ratings")
        return mode

    def _is_of_ties(self, item: Item) -> bool:
        return self.data == "v2" and item.subset == TIES

    def questions(self, item: Item) -> list[Question]:
        """The calls an item needs: one per answer for ratings, else one in a seeded order, or one per place of the right one."""
        answers = item.answers
        if self.mode_of(item) == "ratings":
            ties = self._is_of_ties(item)
            return [Question(rating_messages(item.prompt, answer, ties), (index,)) for index, answer in enumerate(answers)]
        slots = range(len(answers)) if self.both_orders else [self._slot(item)]
        return [_make_question(item.prompt, answers, slot) for slot in slots]

    def _slot(self, item: Item) -> int:
        """The place of the right answer, drawn from the seed and the item alone, so that it does not change with the data."""
        return random.Random(f"{self.seed}|{item.subset}|{item.id}").randrange(len(item.answers))

    def _read_choices(self, item: Item, questions: Sequence[Question], replies: Sequence[str | None]) -> ScoredAnswers:
        """The share of the verdicts that each answer won; the first answer is the right one, and its share is the credit."""
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

    def _read_ratings(self, item: Item, replies: Sequence[str | None]) -> ScoredAnswers:
        """The rating of each answer, and where one answer is right the credit that the ratings give it."""
        details = _details(replies)
        ratings = tuple(float("nan") if reply is None else parse_rating(reply) for reply in replies)
        details["unparsable"] = sum(rating == UNPARSABLE for rating in ratings)
        if len(item.chosen) > 1 or self._is_of_ties(item) or any(reply is None for reply in replies):
            return ScoredAnswers(ratings, None, details)
        return ScoredAnswers(ratings, rating_credit(ratings), details)


def _make_question(prompt: Sequence[Message], answers: Sequence[Answer], slot: int) -> Question:
    """The question in which the right answer has changed places with the one in `slot`."""
    places = list(range(len(answers)))
    places[0], places[slot] = places[slot], places[0]
    return Question(ranking_messages(prompt, [answers[place] for place in places]), tuple(places))


def _details(replies: Sequence[str | None]) -> dict[str, Any]:
    """The columns that a judge's items have in scores.jsonl."""
    return {"judgements": len(replies), "unparsable": 0, "several_named": 0, "replies": list(replies)}


def _prompts_hash() -> str:
    """A hash that changes with the wording of the prompts."""
    question: list[Message] = [{"role": "user", "content": "Q"}]
    answers: list[Answer] = [({"role": "assistant", "content": letter},) for letter in "AB"]
    probes = [ranking_messages(question, answers), ranking_messages(question * 3, answers)]
    probes += [rating_messages(question, answers[0], ties) for ties in (False, True)]
    return hashlib.sha256(repr(probes).encode()).hexdigest()[:16]
