"""Intervals: Wilson's on paper, by its equation and against published tables; the bootstrap against the normal interval."""

import math

import numpy as np
import pytest

from tulu.intervals import bootstrap_mean, percentiles, resampled_means, wilson

Z2 = 1.959964**2


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # With none right the bounds are 0 and z²/(n + z²); with all right their mirror image.
        (0, 10, 0.0, 3.841459 / 13.841459),
        (10, 10, 10 / 13.841459, 1.0),
        # Half of n right: 1/2 ± z / (2 √(n + z²)).
        (5, 10, 0.236593, 0.763407),
        (250, 500, 0.456341, 0.543659),
        (1, 1, 1 / 4.841459, 1.0),
        # Agresti and Coull 1998 count 0 of 4 the same way: z² / (4 + z²).
        (0, 4, 0.0, 3.841459 / 7.841459),
    ],
)
def test_wilson_interval_worked_on_paper(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=1e-6)


def test_wilson_solves_the_score_equation() -> None:
    for n in (1, 7, 500):
        for right in range(0, n + 1, max(1, n // 7)):
            for bound in wilson(right / n, n):
                # |p - bound| = z √(bound (1 - bound) / n): the two shares that the observed one lies just z away from.
                assert (right / n - bound) ** 2 == pytest.approx(Z2 * bound * (1 - bound) / n, abs=1e-12)


def test_wilson_knows_nothing_of_no_answers() -> None:
    assert wilson(float("nan"), 0) == (0.0, 1.0)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = [float(n % 2) for n in range(400)]
    low, high = bootstrap_mean(values)
    # 1.96 standard errors of 0.5 / sqrt(400) either side.
    assert (low, high) == pytest.approx((0.451, 0.549), abs=0.005)
    assert bootstrap_mean([0.3] * 5) == pytest.approx((0.3, 0.3))
    assert all(math.isnan(bound) for bound in bootstrap_mean([]))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_agrees_with_the_published_table(right: int, n: int, low: float, high: float) -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: the score interval without continuity correction."""
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_bootstrap_of_law_school_admissions() -> None:
    """The mean LSAT of Efron and Tibshirani's 15 law schools (An Introduction to the Bootstrap, table 3.1), 600.3 ± 10.4."""
    scores = [576, 635, 558, 578, 666, 580, 555, 661, 651, 605, 653, 575, 545, 572, 594]
    error = math.sqrt(sum((score - 600.27) ** 2 for score in scores)) / 15
    low, high = bootstrap_mean(scores, seed=3)
    assert (low, high) == pytest.approx((600.27 - 1.96 * error, 600.27 + 1.96 * error), abs=2.0)


def test_draws_do_not_depend_on_the_block_that_fits_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(10.0)
    whole = resampled_means(values, 50, np.random.default_rng(1))
    monkeypatch.setattr("tulu.intervals._CELLS", 30)
    assert (resampled_means(values, 50, np.random.default_rng(1)) == whole).all()


def test_percentiles_leave_a_fortieth_on_either_side() -> None:
    assert percentiles(np.arange(41.0)) == (1.0, 39.0)


@pytest.mark.parametrize("n", range(1, 700, 3))
def test_wilsons_interval_holds_the_share(n: int) -> None:
    """Of 200 right ones of 200, the formula alone gives an upper end of 1 - 1e-16."""
    for right in (0, 1, n // 2, n - 1, n):
        low, high = wilson(right / n, n)
        assert 0.0 <= low <= right / n <= high <= 1.0
    assert wilson(1.0, n)[1] == 1.0
    assert wilson(0.0, n)[0] == 0.0
