"""Several reward models as one: non-negative weights are learned on one half of the items and reported on the other.

The idea is that of Billboards (Kasai et al., arXiv 2112.04139): an ensemble of metrics is a metric, evaluated like any other.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tulu.errors import DataError
from tulu.intervals import Floats, Interval, bootstrap_mean
from tulu.reward_models.items import Scored
from tulu.reward_models.sections import Data, Summary, credit, is_of_ties, summarize

STEPS = 2000
"""Steps of gradient descent, after which the weights no longer move."""
RIDGE = 1e-3
"""Pull of the weights towards 0, so that models which agree share the weight, where one could take it all."""


@dataclass(frozen=True)
class Ensemble:
    """What combining models brings, on the half of the items that no weight was learned on."""

    best: str
    """The single model with the highest score on the learning half."""
    gain: float
    """Mean credit of the learned ensemble minus that of the best single model, over items, Ties as best-of-N."""
    gain_interval: Interval
    """95 % bootstrap interval over items."""
    learned_on: int
    """Items of the learning half."""
    reported_on: int
    """Items of the reporting half."""
    weights: dict[str, float]
    """The weight of each model's standardised scores; they add up to 1."""
    combined: dict[str, Summary]
    """Figures of the learned combination, and of the mean, the lowest and mean minus spread of standardised scores."""
    singles: dict[str, Summary]
    """Figures of the single models."""


def combine(models: Mapping[str, Sequence[Scored]], data: Data, seed: int) -> Ensemble:
    """Learn weights on a seeded half of the items and report on the other.

    Every model must have scored the same items; nothing is learned from a pair of which a model lacks a score. Raises
    DataError where the models' items differ or there are too few.
    """
    names = tuple(models)
    rows = _aligned(models)
    learning = [row for row in rows if _is_learned_from(row[0], data, seed)]
    reporting = [row for row in rows if not _is_learned_from(row[0], data, seed)]
    if len(names) < 2 or len(learning) < 2 or len(reporting) < 2:
        raise DataError(f"an ensemble needs two models or more and four items or more; there are {len(names)} and {len(rows)}")
    scales = [_scale(items) for items in zip(*learning, strict=True)]
    weights = learn([_standardised(row, scales) for row in learning])
    rules: dict[str, Callable[[Floats], Floats]] = {
        "learned": lambda scores_MA: weights @ scores_MA,
        "mean": lambda scores_MA: scores_MA.mean(axis=0),
        "worst": lambda scores_MA: scores_MA.min(axis=0),
        "mean minus spread": lambda scores_MA: scores_MA.mean(axis=0) - scores_MA.std(axis=0),
    }
    standard = [_standardised(row, scales) for row in reporting]
    held_out = {name: [_combined(row, rule) for row in standard] for name, rule in rules.items()}
    singles = {name: list(items) for name, items in zip(names, zip(*reporting, strict=True), strict=True)}
    accuracy = [_credits(items).mean() for items in zip(*learning, strict=True)]
    best = names[int(np.argmax(accuracy))]
    gains = _credits(held_out["learned"]) - _credits(singles[best])
    return Ensemble(
        best=best,
        gain=float(gains.mean()),
        gain_interval=bootstrap_mean(gains, seed, resamples=1000),
        learned_on=len(learning),
        reported_on=len(reporting),
        weights=dict(zip(names, weights.tolist(), strict=True)),
        combined={name: summarize(items, data) for name, items in held_out.items()},
        singles={name: summarize(items, data) for name, items in singles.items()},
    )


def learn(rows: Sequence[Sequence[Scored]]) -> Floats:
    """(M,) non-negative weights that add up to 1, by Bradley-Terry on all pairs of a right and a wrong answer.

    Minimises mean log(1 + exp(-w·Δ)) + RIDGE |w|² by projected gradient steps; convex, so the start does not matter.
    """
    differences = [
        [scored.chosen[right] - scored.rejected[wrong] for scored in row]
        for row in rows
        for right in range(len(row[0].chosen))
        for wrong in range(len(row[0].rejected))
    ]
    delta_PM = np.array([difference for difference in differences if np.isfinite(difference).all()], dtype=np.float64)
    if not len(delta_PM):
        raise DataError("an ensemble needs items that every model has scored; there are none in the half it learns from")
    weights = np.full(delta_PM.shape[1], 1 / delta_PM.shape[1])
    # The step is one over the gradient's Lipschitz constant: a quarter of the largest eigenvalue of ΔᵀΔ / P, and the ridge.
    rate = 1 / (np.linalg.eigvalsh(delta_PM.T @ delta_PM / len(delta_PM)).max() / 4 + 2 * RIDGE)
    for _ in range(STEPS):
        wrong_P = 1 / (1 + np.exp(np.clip(delta_PM @ weights, -500, 500)))
        gradient = -(wrong_P[:, None] * delta_PM).mean(axis=0) + 2 * RIDGE * weights
        weights = np.maximum(weights - rate * gradient, 0)
    total = weights.sum()
    # Models that are all worse than chance get no weight; their mean is then as good as anything.
    return weights / total if total > 0 else np.full_like(weights, 1 / len(weights))


def _aligned(models: Mapping[str, Sequence[Scored]]) -> list[list[Scored]]:
    """One row per item, with every model's scores. Raises DataError, which names the first item in which models differ."""
    tables = {name: {(item.subset, item.id): item for item in items} for name, items in models.items()}
    first_name, first = next(iter(tables.items()))
    if len(first) < len(models[first_name]):
        raise DataError(f"{first_name}: ids appear twice in a subset; an ensemble matches items by subset and id")
    for name, table in tables.items():
        in_one_only = next(iter(set(first) ^ set(table)), None)
        if in_one_only is not None:
            subset, item_id = in_one_only
            raise DataError(f"{first_name} and {name} have not scored the same items: {item_id!r} of {subset!r} is in one only")
        for key, item in table.items():
            if (len(item.chosen), len(item.rejected)) != (len(first[key].chosen), len(first[key].rejected)):
                raise DataError(f"{item.where or name}: item {key[1]!r} has other answers than in {first_name}")
    return [[table[key] for table in tables.values()] for key in first]


def _is_learned_from(item: Scored, data: Data, seed: int) -> bool:
    """Whether an item belongs to the learning half; both rows of a Ties prompt fall into the same half."""
    key = item.id.split(":", 1)[-1] if is_of_ties(item.subset, data) else item.id
    return hashlib.blake2b(f"{seed}|{item.subset}|{key}".encode(), digest_size=1).digest()[0] % 2 == 0


def _scale(items: Sequence[Scored]) -> tuple[float, float]:
    """The mean and the population standard deviation of a model's scores; 0 and 1 where they have none."""
    scores = np.array([score for item in items for score in (*item.chosen, *item.rejected)], dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    deviation = float(scores.std()) if len(scores) else 0.0
    return (float(scores.mean()) if len(scores) else 0.0), deviation or 1.0


def _standardised(row: Sequence[Scored], scales: Sequence[tuple[float, float]]) -> list[Scored]:
    """One item's scores by every model, on the scale of each model's mean and deviation."""
    return [
        replace(
            item,
            chosen=tuple((score - mean) / deviation for score in item.chosen),
            rejected=tuple((score - mean) / deviation for score in item.rejected),
            credit=None,
        )
        for item, (mean, deviation) in zip(row, scales, strict=True)
    ]


def _combined(row: Sequence[Scored], rule: Callable[[Floats], Floats]) -> Scored:
    scores_MA = np.array([[*scored.chosen, *scored.rejected] for scored in row], dtype=np.float64)
    combined = [float(score) for score in rule(scores_MA)]
    split = len(row[0].chosen)
    return replace(row[0], chosen=tuple(combined[:split]), rejected=tuple(combined[split:]), credit=None)


def _credits(items: Sequence[Scored]) -> Floats:
    return np.array([credit(item, "free") for item in items])
