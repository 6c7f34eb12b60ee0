"""95 % intervals of shares and of means over problems. Pure numbers, no torch.

Wilson's formula is three lines and a percentile bootstrap is five, so that scipy (100 MB that nothing else here needs) is not
installed for `scipy.stats.binomtest(...).proportion_ci` and `scipy.stats.bootstrap`. The tests hold both to published figures.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]
Floats = npt.NDArray[np.floating[Any]]

RESAMPLES = 2000
_CELLS = 2_000_000
"""Most numbers that are drawn at once, which bounds the memory of a bootstrap."""


def wilson(share: float, n: int, z: float = 1.959964) -> Interval:
    """Wilson's 95 % score interval of a share of n (Wilson 1927), which stays within [0, 1] at the ends and holds the share."""
    if n == 0:
        return (0.0, 1.0)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and at 1 the share is an end of its interval, which rounding would put beside it.
    return (min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def bootstrap_mean(values: Sequence[float] | Floats, seed: int = 1, resamples: int = RESAMPLES) -> Interval:
    """The percentile bootstrap interval of a mean; NaN where there are no values."""
    if not len(values):
        return (math.nan, math.nan)
    return percentiles(resampled_means(np.asarray(values, dtype=np.float64), resamples, np.random.default_rng(seed)))


def resampled_means(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """(resamples,) means, each of as many values as there are, drawn with replacement."""
    block = max(1, _CELLS // len(values))
    return np.concatenate(
        [
            values[rng.integers(len(values), size=(min(block, resamples - start), len(values)))].mean(axis=1)
            for start in range(0, resamples, block)
        ]
    )


def percentiles(draws: Floats) -> Interval:
    """The 2.5th and the 97.5th percentile of a statistic's draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
