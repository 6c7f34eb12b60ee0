"""Moments of cut log-normal lengths are those of lengths that are drawn."""

import numpy as np
import pytest

from tulu.config.lengths import SPREAD, Lengths

DRAWS = 400_000


def drawn(mean: float, seed: int = 0) -> np.ndarray:
    """Lengths with this mean, none of them cut."""
    return np.random.default_rng(seed).lognormal(np.log(mean) - SPREAD**2 / 2, SPREAD, DRAWS)


@pytest.mark.parametrize(("mean", "longest"), [(700, 4096), (700, 512), (5000, 4096), (20, 10**9)])
@pytest.mark.parametrize("leaves_out", [False, True])
def test_moments_are_those_of_drawn_lengths(mean: float, longest: int, leaves_out: bool) -> None:
    lengths, all_of_them = Lengths(mean, longest, leaves_out), drawn(mean)
    taken = all_of_them[all_of_them <= longest] if leaves_out else np.minimum(all_of_them, longest)
    assert lengths.kept == pytest.approx(len(taken) / DRAWS, rel=0.01)
    assert lengths.tokens == pytest.approx(taken.mean(), rel=0.01)
    assert lengths.pairs() == pytest.approx((taken**2).mean() / 2, rel=0.03)
    assert lengths.nine_tenths == pytest.approx(min(np.quantile(all_of_them, 0.9), longest), rel=0.02)


@pytest.mark.parametrize("window", [64, 1000, 4096, 10_000])
def test_pairs_within_a_window_are_those_of_drawn_lengths(window: int) -> None:
    taken = np.minimum(drawn(900), 4096)
    seen = np.where(taken <= window, taken**2 / 2, window**2 / 2 + (taken - window) * window)
    assert Lengths(900, 4096).pairs(window) == pytest.approx(seen.mean(), rel=0.02)


def test_shares_above_a_length_fall_to_none_at_the_longest() -> None:
    lengths, taken = Lengths(300, 1000), drawn(300)
    for length in (1, 100, 300, 999):
        assert lengths.above(length) == pytest.approx((taken > length).mean(), abs=0.005)
    assert (lengths.above(0), lengths.above(1000), lengths.above(5000)) == (1, 0, 0)


def test_what_padding_would_waste() -> None:
    """What the spread means: random batches of 8 of lengths with a mean of 720, cut at 4,096, hold 35 % useful tokens."""
    batches = np.minimum(drawn(756), 4096).reshape(-1, 8)
    assert batches.mean() == pytest.approx(720, rel=0.02)
    assert batches.sum() / (8 * batches.max(axis=1)).sum() == pytest.approx(0.35, abs=0.01)


def test_lengths_of_which_all_are_left_out() -> None:
    lengths = Lengths(1e30, 2048, leaves_out=True)
    assert (lengths.kept, lengths.tokens, lengths.pairs()) == (0, 2048, 2048**2 / 2)


def test_lengths_are_drawn_by_their_shares() -> None:
    lengths = Lengths(300, 2048)
    drawn = [lengths.at((place + 0.5) / 20_000) for place in range(20_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(lengths.tokens, rel=1e-3)
    assert sum(length > 700 for length in drawn) / len(drawn) == pytest.approx(lengths.above(700), abs=1e-3)
    assert lengths.at(0.9) == pytest.approx(lengths.nine_tenths)
    assert (lengths.at(1e-12), lengths.at(1 - 1e-12)) == (1, 2048)
    with pytest.raises(ValueError, match="left out"):
        Lengths(300, 2048, leaves_out=True).at(0.5)
