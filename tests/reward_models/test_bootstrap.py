"""Bootstrap intervals: seeded, close to the binomial's, and defined where the figure is."""

import math

import pytest

from tulu.reward_models.bootstrap import bootstrap
from tulu.reward_models.items import Scored


def pairs(subset: str, right: int, count: int) -> list[Scored]:
    return [Scored(str(k), subset, (float(k < right),), (0.5,)) for k in range(count)]


def test_interval_is_the_binomials() -> None:
    low, high = bootstrap(pairs("shp", 150, 200), "v1", seed=0).subsets["shp"]
    half = 1.96 * math.sqrt(0.75 * 0.25 / 200)
    assert low == pytest.approx(0.75 - half, abs=0.012)
    assert high == pytest.approx(0.75 + half, abs=0.012)


def test_seed_decides_and_certainty_has_no_width() -> None:
    items = [*pairs("shp", 5, 9), *pairs("hep-go", 4, 4)]
    assert bootstrap(items, "v1", seed=3) == bootstrap(items, "v1", seed=3)
    assert bootstrap(items, "v1", seed=3).subsets["hep-go"] == (1.0, 1.0)
    assert set(bootstrap(items, "v1", seed=3).sections) == {"Reasoning", "Prior Sets"}


def test_free_score_weighs_items() -> None:
    interval = bootstrap([*pairs("big", 90, 90), *pairs("small", 0, 10)], "free", seed=0).score
    assert interval == pytest.approx((0.9, 0.9))


def test_ties_draws_prompts() -> None:
    rows = [
        row
        for k in range(40)
        for row in (
            Scored(f"ref:{k}", "Ties", (1.0,), (float(2 * (k % 2)),)),
            Scored(f"tied:{k}", "Ties", (1.0, 1.0), (float(2 * (k % 2)),)),
        )
    ]
    result = bootstrap(rows, "v2", seed=0)
    low, high = result.subsets["Ties"]
    assert -0.01 <= low < 0.5 < high <= 1.01
    assert result.score == (low, high)
    assert bootstrap(rows[:1], "v2", seed=0).score is None
