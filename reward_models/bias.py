"""Whether a reward model follows form: how often it prefers what is longer or more formatted, and how often that is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tulu.reward_models.items import Answer, Item, length, markup
from tulu.reward_models.sections import Scored

FORMS: Mapping[str, Callable[[Answer], int]] = {"longer": length, "markup": markup}
"""What an answer can have more of: characters, and marks of Markdown."""


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
