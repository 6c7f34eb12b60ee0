"""Choosing among N sampled answers by their rewards, and what that is worth for every n up to N. Pure Python."""

import math
from collections.abc import Sequence


def best_of(rewards: Sequence[float]) -> int:
    """Index of the highest reward, the first of equal ones; NaN is never chosen. Raises ValueError if all are NaN."""
    ranked = ranking(rewards)
    if math.isnan(rewards[ranked[0]]):
        raise ValueError(f"none of {len(rewards)} answers has a reward")
    return ranked[0]


def ranking(rewards: Sequence[float]) -> list[int]:
    """Indices from the highest reward to the lowest, equal ones in their order, NaN last."""
    return sorted(range(len(rewards)), key=lambda index: (math.isnan(rewards[index]), -rewards[index], index))


def expected_best_of(rewards: Sequence[float], scores: Sequence[float], n: int) -> float:
    """Mean score of the answer with the highest reward among n of the N, over all ways to draw n.

    The answer ranked i-th (from 0) is chosen in C(N-i-1, n-1) of the C(N, n) draws, so one set of N samples gives an unbiased
    figure for every n, where taking the first n would waste the others.
    """
    count = len(rewards)
    if len(scores) != count or not 1 <= n <= count:
        raise ValueError(f"{count} rewards, {len(scores)} scores, best of {n}")
    ways = math.comb(count, n)
    return sum(scores[index] * math.comb(count - place - 1, n - 1) for place, index in enumerate(ranking(rewards))) / ways


def oracle_best_of(scores: Sequence[float], n: int) -> float:
    """The same with a perfect reward: pass@n where scores are 0 and 1 (Chen et al., arXiv 2107.03374)."""
    return expected_best_of(scores, scores, n)
