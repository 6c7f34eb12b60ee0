"""Bootstrap intervals of RewardBench's figures: items are drawn again within each subset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tulu.intervals import Floats, Interval, percentiles, resampled_means
from tulu.reward_models.items import Scored
from tulu.reward_models.sections import Data, credit, final_score, group, is_of_ties, section_scores
from tulu.reward_models.ties import WEIGHTS, ties_terms


@dataclass(frozen=True, slots=True)
class Intervals:
    """95 % percentile intervals; None for the final score where there is none."""

    subsets: dict[str, Interval]
    sections: dict[str, Interval]
    score: Interval | None


def bootstrap(items: Sequence[Scored], data: Data, seed: int, resamples: int = 1000) -> Intervals:
    """Percentile intervals from `resamples` draws with replacement of each subset's items (in Ties, of its prompts)."""
    rng = np.random.default_rng(seed)
    groups = group(items, data)
    draws = {name: _draws(rows, data, resamples, rng) for name, rows in groups.items()}
    defined = {name: values for name, values in draws.items() if not np.isnan(values).any()}
    sections: list[dict[str, float]] = []
    scores: list[float] = []
    counts = {name: len(rows) for name, rows in groups.items()}
    for k in range(resamples):
        accuracies = {name: float(values[k]) for name, values in defined.items()}
        sections.append(section_scores(accuracies, data))
        score = _mean_over_items(accuracies, counts) if data == "free" else final_score(sections[-1])
        if score is not None:
            scores.append(score)
    return Intervals(
        {name: percentiles(values) for name, values in defined.items()},
        {name: percentiles(np.array([drawn[name] for drawn in sections])) for name in sections[0]},
        percentiles(np.array(scores)) if scores else None,
    )


def _draws(items: Sequence[Scored], data: Data, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples,) accuracies of one subset; NaN where the accuracy is undefined."""
    if is_of_ties(items[0].subset, data):
        return _ties_draws(items, resamples, rng)
    return resampled_means(np.array([credit(item, data) for item in items]), resamples, rng)


def _ties_draws(items: Sequence[Scored], resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples,) scores of the Ties formula."""
    terms = np.array(ties_terms(items))
    drawn = terms[rng.integers(len(terms), size=(resamples, len(terms)))]
    count = (~np.isnan(drawn)).sum(axis=1)
    means = np.nansum(drawn, axis=1) / np.maximum(count, 1)
    # A draw without a prompt that has both rows has no score; it is left out of the interval rather than counted as 0.
    scores = means @ np.array(WEIGHTS)
    usable = scores[count[:, 2] > 0]
    return np.resize(usable, resamples) if len(usable) else np.full(resamples, np.nan)


def _mean_over_items(accuracies: Mapping[str, float], counts: Mapping[str, int]) -> float | None:
    """The score of free data: the mean credit of all items, from the accuracies of their subsets."""
    total = sum(counts[name] for name in accuracies)
    return sum(accuracies[name] * counts[name] for name in accuracies) / total if total else None
