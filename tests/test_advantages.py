"""Advantages: worked numbers of losses.md §6 and §7, unjudged samples, invariances."""

import math

import pytest
import torch

from tulu.advantages import ADVANTAGES, gae, group_advantages, has_signal

ONE_RIGHT = torch.tensor([10.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("mode", "ddof", "right", "wrong"),
    [
        ("standard", 0, 1.732051, -0.577350),
        ("standard", 1, 1.5, -0.5),
        ("centred", 0, 7.5, -2.5),
        ("loo", 0, 10.0, -10 / 3),
    ],
)
def test_one_right_of_four(mode: str, ddof: int, right: float, wrong: float) -> None:
    found = group_advantages(ONE_RIGHT, mode, ddof)
    assert found.tolist() == pytest.approx([right, wrong, wrong, wrong], abs=1e-6)


@pytest.mark.parametrize("mode", ADVANTAGES)
@pytest.mark.parametrize("ddof", [0, 1])
def test_an_unjudged_sample_changes_nothing_for_the_others(mode: str, ddof: int) -> None:
    judged = torch.tensor([1.0, 0.0, 4.0])
    with_gap = torch.tensor([1.0, math.nan, 0.0, 4.0])
    found = group_advantages(with_gap, mode, ddof)
    assert found[1].isnan()
    assert torch.allclose(found[[0, 2, 3]], group_advantages(judged, mode, ddof))


@pytest.mark.parametrize("mode", ADVANTAGES)
def test_advantages_sum_to_zero_and_ignore_a_shift(mode: str) -> None:
    rewards = torch.tensor([3.0, -1.0, 2.5, 0.0, 7.0])
    found = group_advantages(rewards, mode)
    assert found.sum().item() == pytest.approx(0.0, abs=1e-5)
    assert torch.allclose(found, group_advantages(rewards + 100, mode), atol=1e-4)


def test_standard_ignores_the_scale_of_rewards_and_centred_does_not() -> None:
    assert torch.allclose(group_advantages(ONE_RIGHT, "standard"), group_advantages(ONE_RIGHT / 10, "standard"))
    assert torch.allclose(group_advantages(ONE_RIGHT, "centred"), 10 * group_advantages(ONE_RIGHT / 10, "centred"))


@pytest.mark.parametrize("mode", ADVANTAGES)
def test_equal_rewards_give_zero_not_nan(mode: str) -> None:
    assert group_advantages(torch.full((4,), 10.0), mode, ddof=1).tolist() == [0.0] * 4


@pytest.mark.parametrize("mode", ADVANTAGES)
def test_a_single_judged_sample_has_no_advantage(mode: str) -> None:
    found = group_advantages(torch.tensor([math.nan, 5.0]), mode, ddof=1)
    assert found[1].item() == 0.0


@pytest.mark.parametrize(
    ("rewards", "signal"),
    [
        ([1.0, 0.0], True),
        ([1.0, 1.0], False),
        ([1.0, math.nan], False),
        ([math.nan, math.nan], False),
        ([1.0, math.nan, 0.0], True),
        ([], False),
    ],
)
def test_has_signal(rewards: list[float], signal: bool) -> None:
    assert has_signal(torch.tensor(rewards)) is signal


def test_gae_of_losses_md_6() -> None:
    advantages, returns = gae(torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.5, 0.6, 0.7]), gamma=1.0, lam=0.95)
    assert advantages.tolist() == pytest.approx([0.46575, 0.385, 0.3], abs=1e-6)
    assert returns.tolist() == pytest.approx([0.96575, 0.985, 1.0], abs=1e-6)


def test_gae_at_its_ends() -> None:
    rewards, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.1, 0.2])
    # λ = 1: what is still to come minus the value; λ = 0: one step of bootstrapping.
    assert gae(rewards, values, 1.0, 1.0)[0].tolist() == pytest.approx([5.5, 4.9, 2.8])
    assert gae(rewards, values, 1.0, 0.0)[0].tolist() == pytest.approx([0.6, 2.1, 2.8])
