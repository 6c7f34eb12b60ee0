"""Several reward models as one: non-negative weights learned on one half of the items, reported on the other.

The idea of Billboards (Kasai et al., arXiv 2112.04139): an ensemble of metrics is a metric, judged like any other.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tulu.errors import DataError
from tulu.reward_models.bootstrap import Interval
from tulu.reward_models.sections import TIES, Data, Scored, Summary, credit, summarize

Floats = npt.NDArray[np.float64]

STEPS = 2000
RIDGE = 1e-3
"""Pull of the weights towards 0, so that models which agree share the weight instead of one taking it all."""


@dataclass(frozen=True)
class Ensemble:
    """What combining brings, on the half of the items that no weight has seen."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    """Of standardised scores; they add up to 1."""
    combined: dict[str, Summary]
    """learned (by the weights), mean, worst (lowest) and mean minus spread of standardised scores."""
    singles: dict[str, Summary]
    best: str
    """The single model with the highest score on the learning half."""
    gain: float
    """Mean credit of the learned ensemble minus that of the best single model, over items, Ties as best-of-N."""
    gain_interval: Interval
    """95 %, by drawing items again."""
    learned_on: int
    reported_on: int


def combine(models: Mapping[str, Sequence[Scored]], data: Data, seed: int) -> Ensemble:
    """Learn weights on a seeded half of the items and report on the other.

    Every model must have scored the same items; items of which a model lacks a score are learned from no more than they
    are credited. DataError where the models' items differ or there are too few.
    """
    names = tuple(models)
    rows = _aligned(models)
    learning = [index for index, row in enumerate(rows) if _half(row[0], data, seed)]
    reporting = [index for index in range(len(rows)) if index not in set(learning)]
    if len(names) < 2 or len(learning) < 2 or len(reporting) < 2:
        raise DataError(f"an ensemble needs two models or more and four items or more; there are {len(names)} and {len(rows)}")
    scale = [_scale([rows[index][model] for index in learning]) for model in range(len(names))]
    standard = [[_standardised(scored, *scale[model]) for model, scored in enumerate(row)] for row in rows]
    weights = learn([standard[index] for index in learning])
    rules: dict[str, Callable[[Floats], Floats]] = {
        "learned": lambda scores_MA: weights @ scores_MA,
        "mean": lambda scores_MA: scores_MA.mean(axis=0),
        "worst": lambda scores_MA: scores_MA.min(axis=0),
        "mean minus spread": lambda scores_MA: scores_MA.mean(axis=0) - scores_MA.std(axis=0),
    }
    held_out = {name: [_combined(standard[index], rule) for index in reporting] for name, rule in rules.items()}
    singles = {name: [rows[index][model] for index in reporting] for model, name in enumerate(names)}
    accuracy = [_mean_credit([rows[index][model] for index in learning]) for model in range(len(names))]
    best = names[int(np.argmax(accuracy))]
    gains = _credits(held_out["learned"]) - _credits(singles[best])
    return Ensemble(
        names=names,
        weights=tuple(float(weight) for weight in weights),
        combined={name: summarize(items, data) for name, items in held_out.items()},
        singles={name: summarize(items, data) for name, items in singles.items()},
        best=best,
        gain=float(gains.mean()),
        gain_interval=_interval(gains, seed),
        learned_on=len(learning),
        reported_on=len(reporting),
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
    # The gradient changes no faster than this (a quarter of the largest eigenvalue of ΔᵀΔ / P, and the ridge).
    rate = 1 / (np.linalg.eigvalsh(delta_PM.T @ delta_PM / len(delta_PM)).max() / 4 + 2 * RIDGE)
    for _ in range(STEPS):
        wrong_P = 1 / (1 + np.exp(np.clip(delta_PM @ weights, -500, 500)))
        gradient = -(wrong_P[:, None] * delta_PM).mean(axis=0) + 2 * RIDGE * weights
        weights = np.maximum(weights - rate * gradient, 0)
    total = weights.sum()
    # Models that are all worse than chance get no weight; their mean is then as good as anything.
    return weights / total if total > 0 else np.full_like(weights, 1 / len(weights))


def _aligned(models: Mapping[str, Sequence[Scored]]) -> list[list[Scored]]:
    """One row per item, with each model's scores; DataError names the first item in which models differ."""
    tables = {name: {(item.subset, item.id): item for item in items} for name, items in models.items()}
    first_name, first = next(iter(tables.items()))
    if len(first) < len(models[first_name]):
        raise DataError(f"{first_name}: ids appear twice in a subset; an ensemble matches items by subset and id")
    for name, table in tables.items():
        odd = next(iter(set(first) ^ set(table)), None)
        if odd is not None:
            subset, item_id = odd
            raise DataError(f"{first_name} and {name} have not scored the same items: {item_id!r} of {subset!r} is in one only")
        for key, item in table.items():
            if (len(item.chosen), len(item.rejected)) != (len(first[key].chosen), len(first[key].rejected)):
                raise DataError(f"{item.where or name}: item {key[1]!r} has other answers than in {first_name}")
    return [[table[key] for table in tables.values()] for key in first]


def _half(item: Scored, data: Data, seed: int) -> bool:
    """Whether an item is learned from; both rows of a Ties prompt fall on the same side."""
    key = item.id.split(":", 1)[-1] if data == "v2" and item.subset == TIES else item.id
    return hashlib.blake2b(f"{seed}|{item.subset}|{key}".encode(), digest_size=1).digest()[0] % 2 == 0


def _scale(items: Sequence[Scored]) -> tuple[float, float]:
    """Mean and population deviation of all scores of a model."""
    scores = np.array([score for item in items for score in (*item.chosen, *item.rejected)], dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    deviation = float(scores.std()) if len(scores) else 0.0
    return (float(scores.mean()) if len(scores) else 0.0), deviation or 1.0


def _standardised(item: Scored, mean: float, deviation: float) -> Scored:
    chosen, rejected = (tuple((score - mean) / deviation for score in side) for side in (item.chosen, item.rejected))
    return replace(item, chosen=chosen, rejected=rejected, credit=None)


def _combined(row: Sequence[Scored], rule: Callable[[Floats], Floats]) -> Scored:
    scores_MA = np.array([[*scored.chosen, *scored.rejected] for scored in row], dtype=np.float64)
    combined = [float(score) for score in rule(scores_MA)]
    split = len(row[0].chosen)
    return replace(row[0], chosen=tuple(combined[:split]), rejected=tuple(combined[split:]), credit=None)


def _credits(items: Sequence[Scored]) -> Floats:
    return np.array([credit(item, "free") for item in items])


def _mean_credit(items: Sequence[Scored]) -> float:
    return float(_credits(items).mean())


def _interval(values: Floats, seed: int, resamples: int = 1000) -> Interval:
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
