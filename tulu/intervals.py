"""95 % intervals of shares and of means over problems. Pure numbers, no torch."""

import math
from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
RESAMPLES = 2000


def wilson(share: float, n: int, z: float = 1.959964) -> Interval:
    """Wilson's 95 % score interval of a share of n (Wilson 1927), which stays within [0, 1] at the ends."""
    if n == 0:
        return (0.0, 1.0)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


def bootstrap_mean(values: Sequence[float], seed: int = 1) -> Interval:
    """Percentile bootstrap of a mean: values are drawn again with replacement; NaN where there are none."""
    if not values:
        return (math.nan, math.nan)
    numbers = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means = [numbers[rng.integers(len(numbers), size=len(numbers))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
