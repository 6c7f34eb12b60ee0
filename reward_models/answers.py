"""A reward model in use: rewards of answers to prompts, to train on, to pick the best of N, to keep samples or drop them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tulu.config.schema import Judge
from tulu.errors import DataError, RecipeError
from tulu.grading.grader import expose_thinking
from tulu.model.load import from_pretrained
from tulu.reward_models.best_of import best_of
from tulu.reward_models.encoding import Limits
from tulu.reward_models.items import Item
from tulu.reward_models.model import RewardModel
from tulu.reward_models.plain_scoring import PlainClassifierScorer, needs_plain
from tulu.reward_models.scorers import ClassifierScorer, ScoredAnswers, Scorer
from tulu.types import Message, Problem, Verdict
from tulu.verifiers.text import after_thinking


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer that a reward model prefers, and what it said of all."""

    index: int
    rewards: tuple[float, ...]
    cut: bool
    """Whether the conversation was longer than the model reads, so that its start was cut."""


class AnswerScorer:
    """Rewards of texts, in float32, whatever else is scored beside them."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str = "tokenizer",
        precision: str = "fp32",
        max_length: int | None = None,
        row_tokens: int = 8192,
        revision: str | None = None,
    ) -> "AnswerScorer":
        """From a folder or hub name. Raises RecipeError if it holds no trained head, or its tokenizer has no template."""
        config = from_pretrained(AutoConfig, path, revision=revision)
        if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
            kind = (config.architectures or ["nothing"])[0]
            raise RecipeError(f"{path}: no reward model: its config.json says {kind}; train one with tulu rm RECIPE")
        if config.num_labels != 1:
            raise RecipeError(f"{path}: a classifier with {config.num_labels} labels; a reward model has one")
        positions = config.get_text_config().to_dict().get("max_position_embeddings")
        lengths = [length for length in (max_length, positions) if length is not None]
        limits = Limits(min(lengths, default=None))
        if needs_plain(config):
            return cls(PlainClassifierScorer(path, template, precision, limits, row_tokens, revision))
        model = RewardModel.load(path, template=template, precision=precision, revision=revision)
        return cls(ClassifierScorer(model, limits, row_tokens, config.get_text_config().pad_token_id))

    def choose(self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]) -> list[Choice]:
        """For each prompt (messages that end with the user) the best of its answers."""
        items = [_item(prompt, texts) for prompt, texts in zip(prompts, answers, strict=True)]
        return [
            Choice(best_of(found.scores), found.scores, any((found.details or {}).get("cut", ())))
            for found in self.scorer.score(items)
        ]

    def rewards(self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[str]]) -> list[tuple[float, ...]]:
        """The reward of each answer to each prompt."""
        return [choice.rewards for choice in self.choose(prompts, answers)]


class RewardGrader:
    """A reward model where verifiers are asked: a verdict a completion, all of a step's in one pass over packed rows.

    It reads the whole conversation and what follows the thinking. A conversation longer than it reads, a score that is not
    finite and a turn that its template refuses are faults of ours: status error, no score. Nothing is ever cut.
    """

    def __init__(self, scorer: AnswerScorer) -> None:
        self.scorer = scorer

    @property
    def digest(self) -> str:
        """Hash of the reward model's weights, by content."""
        return str(self.scorer.scorer.settings["weights"])

    @classmethod
    def load(cls, judge: Judge, own: Path | None = None) -> "RewardGrader":
        """The reward model that a recipe names, else `own`, the one that its rm stage trained. Raises RecipeError."""
        if judge.path is None and (own is None or not own.is_dir()):
            raise RecipeError(f"reward_model.path: nothing in {own} yet; run `tulu rm` first, or name a reward model")
        fields: dict[str, Any] = judge.model_dump(include={"template", "precision", "max_length", "row_tokens", "revision"})
        return cls(AnswerScorer.load(judge.path or str(own), **fields))

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """One verdict per (completion, problem), in order; completions of a problem that stand together share its prompt."""
        asked = [
            _item(problem.messages, [after_thinking(expose_thinking(text, own)) for text, own in answers])
            for problem, answers in ((group[0][1], group) for group in _runs(items))
        ]
        return [verdict for item, found in zip(asked, self._scored(asked), strict=True) for verdict in _verdicts(item, found)]

    def _scored(self, asked: list[Item]) -> list[ScoredAnswers | str]:
        """Scores of every item, or why its template refuses it."""
        try:
            return list(self.scorer.scorer.score(asked))
        except DataError as error:
            if len(asked) == 1:
                return [str(error)]
            return [found for item in asked for found in self._scored([item])]


def _runs(items: Sequence[tuple[str, Problem]]) -> list[list[tuple[str, Problem]]]:
    return [list(run) for _, run in groupby(items, key=lambda item: (item[1].id, item[1].messages))]


def _verdicts(item: Item, found: ScoredAnswers | str) -> list[Verdict]:
    if isinstance(found, str):
        return [Verdict(None, "error", found)] * len(item.answers)
    details = found.details or {}
    return [
        _verdict(score, tokens, cut) for score, tokens, cut in zip(found.scores, details["tokens"], details["cut"], strict=True)
    ]


def _verdict(score: float, tokens: int, cut: int) -> Verdict:
    if cut:
        return Verdict(None, "error", f"a conversation of {tokens + cut} tokens, and the reward model reads {tokens}")
    if not math.isfinite(score):
        return Verdict(None, "error", f"the reward model's score is {score}")
    return Verdict(score)


def _item(prompt: Sequence[Message], texts: Sequence[str]) -> Item:
    tails: tuple[tuple[Message, ...], ...] = tuple(({"role": "assistant", "content": text},) for text in texts)
    return Item("", "", tuple(prompt), tails, ())
