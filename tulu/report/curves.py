"""Metrics as curves: which belong together in one panel, and how many points of each are drawn."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from tulu.report.reading import Object, number

FIRST = (
    *("reward", "solved", "accuracy", "loss", "nll", "margin", "reward_chosen"),
    *("reward_rejected", "logp_chosen", "logp_rejected", "reward_model", "kl", "entropy", "mismatch", "ratio", "clipped"),
    *("kl_to_sampler", "masked", "truncated", "completion_tokens"),
    *("groups", "groups_sampled", "staleness", "gradient_norm", "learning_rate"),
    *("tokens_per_second", "mfu", "seconds", "sampling_seconds", "tokens", "peak_gib"),
)
"""Metrics in the order in which people look at them; the others follow by name."""
FAMILIES = {
    **{"share_": "share of time", "pass@": "pass@K", "staleness/": "share by staleness", "sync/": "seconds of a sync, by part"},
    **{f"{name}/": f"{name}, by verifier" for name in ("solved", "reward", "faults")},
}
"""Metrics that share a panel, by how their names begin, and what the panel is called."""


@dataclass(frozen=True)
class Series:
    """One metric of one stage of one run."""

    run: int
    label: str
    steps: list[float]
    values: list[float]
    low: list[float]
    high: list[float]
    """The smallest and the largest value that each point stands for."""
    each: int
    """Logged steps that a point is the mean of."""
    last: float
    """The last value as it was logged."""


@dataclass(frozen=True)
class Panel:
    """One chart."""

    title: str
    series: list[Series]
    each: int
    """Most steps that one of its points is the mean of."""


def series_of(run: int, metrics: Sequence[Object], points: int) -> dict[str, Series]:
    """Every metric that was logged, with at most `points` points; a point that stands for several steps is their mean."""
    columns: dict[str, tuple[list[float], list[float]]] = {}
    for row in metrics:
        step = number(row.get("step"))
        for name, value in row.items() if step is not None else ():
            if name != "step" and (found := number(value)) is not None and step is not None:
                steps, values = columns.setdefault(str(name), ([], []))
                steps.append(step)
                values.append(found)
    return {name: _thinned(run, name, steps, values, points) for name, (steps, values) in columns.items()}


def _thinned(run: int, name: str, steps: list[float], values: list[float], points: int) -> Series:
    each = -(-len(values) // max(1, points))
    cuts = np.arange(0, len(values), each)
    counts = np.diff([*cuts, len(values)])
    # Means of huge numbers must not overflow into infinity.
    means = np.add.reduceat(np.asarray(values) / np.repeat(counts, counts), cuts)
    low, high = np.minimum.reduceat(values, cuts), np.maximum.reduceat(values, cuts)
    ends = np.asarray(steps)[cuts + counts - 1]
    return Series(run, name, ends.tolist(), means.tolist(), low.tolist(), high.tolist(), each, values[-1])


def panels(series: Iterable[Series], together: bool) -> list[Panel]:
    """The charts of one stage in order: runs share the panel of a metric, and with `together` families of metrics one too."""
    prefixes = FAMILIES if together else {}

    def title(one: Series) -> str:
        return next((name for prefix, name in prefixes.items() if one.label.startswith(prefix)), one.label)

    def rank(name: str) -> tuple[int, str]:
        # What was measured on rows that are not trained on comes before all else.
        return (-1 if name.startswith("eval/") else FIRST.index(name) if name in FIRST else len(FIRST), name)

    ordered = sorted(series, key=lambda one: (rank(title(one)), one.label, one.run))
    grouped = [(name, list(members)) for name, members in groupby(ordered, key=title)]
    return [Panel(name, members, max(one.each for one in members)) for name, members in grouped]
