"""Whether a reward model follows form: how often it prefers what is longer or more formatted, and how often that is right."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tulu.reward_models.items import Answer, Item, Scored, text
from tulu.reward_models.sections import Data, Summary, summarize

_MARKUP = re.compile(r"^\s*(?:[-*+]|\d+[.)]|#{1,6})\s|\*\*[^*\n]+\*\*|^```", re.MULTILINE)
"""Markdown that a person sees as formatting: list items, headings, bold, code fences."""


def length(answer: Answer) -> int:
    """Characters of an answer."""
    return sum(len(message["content"]) for message in answer)


def markup(answer: Answer) -> int:
    """Marks of Markdown formatting in an answer."""
    return len(_MARKUP.findall(text(answer)))


FORMS: Mapping[str, Callable[[Answer], int]] = {"longer": length, "markup": markup}
"""What an answer can have more of: characters, and marks of Markdown."""
BASELINES: Mapping[str, int] = {"longer wins": 1, "shorter wins": -1}
"""Models that see only length, with the sign of their score: a subset that one of them solves says little about quality."""


@dataclass(frozen=True, slots=True)
class Bias:
    """A model's preference for a form, over the pairs of a right and a wrong answer that differ in it."""

    preferred: float
    """Share of the pairs in which the model scores the answer with more of the form strictly higher."""
    right: float
    """Share of the pairs in which that answer is the right one: what an unbiased, perfect model would prefer."""
    pairs: int


def biases(items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, dict[str, Bias]]:
    """The biases by subset and form. Items with missing scores do not count, and a form in which no pair differs is absent."""
    differences: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for item, scores in zip(items, scored, strict=True):
        if scores.missing:
            continue
        for form, measure in FORMS.items():
            differences.setdefault(item.subset, {}).setdefault(form, []).extend(_differences(item, scores, measure))
    return {subset: {form: _bias(pairs) for form, pairs in forms.items() if pairs} for subset, forms in differences.items()}


def _differences(item: Item, scores: Scored, measure: Callable[[Answer], int]) -> list[tuple[int, float]]:
    """For each pair that differs: how much more of the form the right answer has, and how much higher it scores."""
    right = [(measure(answer), score) for answer, score in zip(item.chosen, scores.chosen, strict=True)]
    wrong = [(measure(answer), score) for answer, score in zip(item.rejected, scores.rejected, strict=True)]
    pairs = [(amount - other, score - against) for amount, score in right for other, against in wrong]
    return [(more, higher) for more, higher in pairs if more]


def _bias(differences: Sequence[tuple[int, float]]) -> Bias:
    count = len(differences)
    preferred = sum(more * higher > 0 for more, higher in differences)
    right = sum(more > 0 for more, _ in differences)
    return Bias(preferred / count, right / count, count)


def baselines(items: Sequence[Item], data: Data) -> dict[str, Summary]:
    """RewardBench's figures for each baseline, by the same rules (level answers get no credit as pairs)."""
    return {
        name: summarize([item.scored([float(sign * length(answer)) for answer in item.answers]) for item in items], data)
        for name, sign in BASELINES.items()
    }
