"""Whether a reward model follows form: how often it prefers what is longer or more formatted, and how often that is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tulu.reward_models.items import Answer, Item, length, markup
from tulu.reward_models.sections import Scored

FORMS: Mapping[str, Callable[[Answer], int]] = {"longer": length, "markup": markup}
"""What an answer can have more of: characters, marks of Markdown."""


@dataclass(frozen=True, slots=True)
class Bias:
    """Over the pairs of a right and a wrong answer that differ in a form."""

    preferred: float
    """Share in which the model scores the one that has more of it strictly higher."""
    right: float
    """Share in which that one is the right answer: what an unbiased, perfect model would prefer."""
    pairs: int


def biases(items: Sequence[Item], scored: Sequence[Scored]) -> dict[str, dict[str, Bias]]:
    """By subset and form; what no pair differs in is left out, and so are items with missing scores."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for item, scores in zip(items, scored, strict=True):
        if scores.missing:
            continue
        for form, measure in FORMS.items():
            found.setdefault(item.subset, {}).setdefault(form, []).extend(_differences(item, scores, measure))
    return {
        subset: {form: _bias(differences) for form, differences in forms.items() if differences}
        for subset, forms in found.items()
    }


def _differences(item: Item, scores: Scored, measure: Callable[[Answer], int]) -> list[tuple[int, float]]:
    """(how much more the right answer has, how much higher it scores) of each pair that differs."""
    right = [(measure(answer), score) for answer, score in zip(item.chosen, scores.chosen, strict=True)]
    wrong = [(measure(answer), score) for answer, score in zip(item.rejected, scores.rejected, strict=True)]
    pairs = [(amount - other, score - against) for amount, score in right for other, against in wrong]
    return [(more, higher) for more, higher in pairs if more]


def _bias(differences: Sequence[tuple[int, float]]) -> Bias:
    count = len(differences)
    return Bias(
        sum(more * higher > 0 for more, higher in differences) / count, sum(more > 0 for more, _ in differences) / count, count
    )
