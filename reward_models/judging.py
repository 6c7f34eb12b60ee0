"""Judges: language models that say which answer is best, or rate every answer."""

import logging
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tulu.errors import RecipeError
from tulu.reward_models.items import Answer, Item, Scored
from tulu.reward_models.judge_prompts import (
    MAX_ANSWERS,
    PROMPTS_HASH,
    UNPARSABLE,
    parse_choices,
    parse_rating,
    ranking_messages,
    rating_credit,
    rating_messages,
)
from tulu.reward_models.options import JudgeMode, RewardBenchOptions
from tulu.reward_models.responders import Responder
from tulu.reward_models.scorers import Scorer
from tulu.reward_models.sections import Data, is_of_ties
from tulu.types import Message

log = logging.getLogger("tulu")

REPLY_TOKENS: Mapping[JudgeMode, int] = {"pairwise": 2048, "ranking": 2048, "ratings": 1024}
"""Most tokens of a reply where --judge-tokens does not say, and the judge has room for them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call to the judge."""

    messages: list[Message]
    """The conversation that the judge replies to."""
    places: tuple[int, ...]
    """Indices of the answers that are shown as A, B, …; a rating shows one."""


class JudgeScorer(Scorer):
    """Gives items the credit of a judge's verdicts; a verdict that cannot be read has the credit of a guess and is counted."""

    def __init__(self, responder: Responder, data: Data, options: RewardBenchOptions) -> None:
        self.responder, self.data, self.options = responder, data, options
        self.reply_tokens = {mode: options.judge_tokens or responder.usual_tokens(usual) for mode, usual in REPLY_TOKENS.items()}
        if options.judge_tokens is None and self.reply_tokens != REPLY_TOKENS:
            most = max(self.reply_tokens.values())
            log.info("replies have at most %d tokens, half of what the judge reads; --judge-tokens sets another number", most)
        self.settings = {
            "kind": "judge",
            "mode": options.judge_mode or "auto",
            "both_orders": options.both_orders,
            # Where every order is shown, the seed decides nothing.
            "order_seed": None if options.both_orders else options.seed,
            "judge_tokens": options.judge_tokens,
            "prompts": PROMPTS_HASH,
            **responder.settings,
        }

    def close(self) -> None:
        """Free the judge."""
        self.responder.close()

    def score(self, items: Sequence[Item]) -> list[Scored]:
        """Credits and scores of items. Raises EngineError if the judge cannot be reached."""
        questions = [self.questions(item) for item in items]
        replies: list[list[str | None]] = [[] for _ in items]
        for mode in REPLY_TOKENS:
            # One call holds all questions of a mode, so that the judge answers them side by side.
            indices = [index for index, item in enumerate(items) if self.mode_of(item) == mode]
            chats = [question.messages for index in indices for question in questions[index]]
            remaining = iter(self.responder.replies(chats, self.reply_tokens[mode]))
            for index in indices:
                replies[index] = [next(remaining) for _ in questions[index]]
        return [
            self._read_ratings(item, texts) if self.mode_of(item) == "ratings" else self._read_choices(item, calls, texts)
            for item, calls, texts in zip(items, questions, replies, strict=True)
        ]

    def mode_of(self, item: Item) -> JudgeMode:
        """The mode in which an item is judged. Raises RecipeError where --judge-mode cannot judge it."""
        # Several right answers have no single best one.
        if len(item.chosen) > 1 or self._is_of_ties(item):
            return "ratings"
        count = len(item.answers)
        mode = self.options.judge_mode or ("pairwise" if count == 2 else "ranking")
        if (mode == "pairwise" and count != 2) or (mode == "ranking" and count > MAX_ANSWERS):
            raise RecipeError(f"--judge-mode {mode}: {item.where or item.id} has {count} answers; use --judge-mode ratings")
        return mode

    def _is_of_ties(self, item: Item) -> bool:
        return is_of_ties(item.subset, self.data)

    def questions(self, item: Item) -> list[Question]:
        """The calls an item needs: one per answer for ratings, else one in a seeded order, or one per place of the right one."""
        answers = item.answers
        if self.mode_of(item) == "ratings":
            ties = self._is_of_ties(item)
            return [Question(rating_messages(item.prompt, answer, ties), (index,)) for index, answer in enumerate(answers)]
        # The place of the right answer is drawn from the seed and the item alone, so that it does not change with the data.
        drawn = random.Random(f"{self.options.seed}|{item.subset}|{item.id}").randrange(len(answers))
        slots = range(len(answers)) if self.options.both_orders else [drawn]
        return [_make_question(item.prompt, answers, slot) for slot in slots]

    def _read_choices(self, item: Item, questions: Sequence[Question], replies: Sequence[str | None]) -> Scored:
        """The share of the verdicts that each answer won; the first answer is the right one, and its share is the credit."""
        count = len(item.answers)
        details = _details(replies)
        if any(reply is None for reply in replies):
            return item.scored([math.nan] * count, None, details)
        shares = [0.0] * count
        for question, reply in zip(questions, replies, strict=True):
            named = parse_choices(reply or "", count)
            details["unparsable"] += not named
            details["several_named"] += len(named) > 1
            for place, answer in enumerate(question.places):
                shares[answer] += (float(place == named[0]) if named else 1 / count) / len(questions)
        details["places"] = [list(question.places) for question in questions]
        return item.scored(shares, shares[0], details)

    def _read_ratings(self, item: Item, replies: Sequence[str | None]) -> Scored:
        """The rating of each answer, and where one answer is right the credit that the ratings give it."""
        details = _details(replies)
        ratings = [math.nan if reply is None else parse_rating(reply) for reply in replies]
        details["unparsable"] = sum(rating == UNPARSABLE for rating in ratings)
        if len(item.chosen) > 1 or self._is_of_ties(item) or any(reply is None for reply in replies):
            return item.scored(ratings, None, details)
        return item.scored(ratings, rating_credit(ratings), details)


def _make_question(prompt: Sequence[Message], answers: Sequence[Answer], slot: int) -> Question:
    """The question in which the right answer has changed places with the one in `slot`."""
    places = list(range(len(answers)))
    places[0], places[slot] = places[slot], places[0]
    return Question(ranking_messages(prompt, [answers[place] for place in places]), tuple(places))


def _details(replies: Sequence[str | None]) -> dict[str, Any]:
    """The columns that a judge's items have in scores.jsonl."""
    return {"judgements": len(replies), "unparsable": 0, "several_named": 0, "replies": list(replies)}
