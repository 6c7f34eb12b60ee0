"""A reward model in a verifier's place: completions of problems to verdicts, for RLVR, best-of-N, sampling and `tulu verify`."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tulu.config.schema import RewardModelSettings
from tulu.errors import DataError, RecipeError
from tulu.grading.grader import expose_thinking
from tulu.reward_models.choose_scorer import load_reward_model
from tulu.reward_models.items import Item, Scored
from tulu.reward_models.scorers import Scorer
from tulu.types import Message, Problem, Verdict
from tulu.verifiers.text import after_thinking


class RewardGrader:
    """Grades completions with a scorer, all of a step's in one pass over packed rows.

    The scorer reads the whole conversation and what follows the thinking. A conversation longer than it reads, a score that is
    not finite and a turn that its template refuses are faults of ours: the verdict has status error and no score. No
    conversation is graded by a part of it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @property
    def digest(self) -> str:
        """Hash of the reward model's weights, by content."""
        return str(self.scorer.settings["weights"])

    @classmethod
    def load(cls, settings: RewardModelSettings, trained: Path | None = None, trust_remote_code: bool = False) -> "RewardGrader":
        """The reward model that the settings name, else `trained`, the folder of the recipe's own rm stage.

        Raises RecipeError where there is neither, or no reward model in the folder.
        """
        if settings.path is None and (trained is None or not trained.is_dir()):
            raise RecipeError(f"reward_model.path: nothing in {trained} yet; run `tulu rm` first, or name a reward model")
        fields: dict[str, Any] = settings.model_dump(include={"template", "precision", "max_length", "row_tokens", "revision"})
        return cls(load_reward_model(settings.path or str(trained), trust_remote_code=trust_remote_code, **fields))

    def grade(self, completions: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """One verdict per (completion, problem), in order; adjacent completions of a problem share its prompt."""
        problems = [list(rows) for _, rows in groupby(completions, key=lambda row: (row[1].id, row[1].messages))]
        items = [
            make_item(rows[0][1].messages, [after_thinking(expose_thinking(text, problem)) for text, problem in rows])
            for rows in problems
        ]
        results = zip(items, self._score(items), strict=True)
        return [verdict for item, result in results for verdict in _verdicts(item, result)]

    def _score(self, items: Sequence[Item]) -> list[Scored | str]:
        """The scores of every item, or the reason why the template refuses it."""
        try:
            return list(self.scorer.score(items))
        except DataError as error:
            if len(items) == 1:
                return [str(error)]
            return [result for item in items for result in self._score([item])]


def make_item(prompt: Sequence[Message], completions: Sequence[str]) -> Item:
    """Completions of a prompt as an item to score, in which no completion is known to be right or wrong."""
    answers: tuple[tuple[Message, ...], ...] = tuple(({"role": "assistant", "content": text},) for text in completions)
    return Item("", "", tuple(prompt), answers, ())


def _verdicts(item: Item, result: Scored | str) -> list[Verdict]:
    if isinstance(result, str):
        return [Verdict(None, "error", result)] * len(item.answers)
    return [_verdict(*row) for row in zip(result.scores, result.details["tokens"], result.details["cut"], strict=True)]


def _verdict(score: float, tokens: int, cut: int) -> Verdict:
    """The verdict of one score, of a conversation of which `tokens` were read and `cut` were not."""
    if cut:
        return Verdict(None, "error", f"a conversation of {tokens + cut} tokens, and the reward model reads {tokens}")
    if not math.isfinite(score):
        return Verdict(None, "error", f"the reward model's score is {score}")
    return Verdict(score)
