"""Losses: every worked number of losses.md, signs, and gradients where they must be zero."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tulu.losses import KL, bradley_terry_loss, dpo_loss, grpo_loss, kl_estimate, sampler_ratio, sft_loss, simpo_loss, truncated


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_sft_is_the_negative_sum_and_weights_tokens() -> None:
    loss, metrics = sft_loss(t(-1, -2, -3))
    assert loss.item() == 6.0
    assert (metrics["nll"][0].item(), metrics["nll"][1].item()) == (6.0, 3)
    assert sft_loss(t(-1, -2, -3), t(1, 0.5, 0))[0].item() == 2.0


@pytest.mark.parametrize(
    ("chosen", "rejected", "ref_chosen", "ref_rejected", "beta", "smoothing", "expected"),
    [
        (-10, -11, -14, -13, 0.1, 0.0, 0.598139),
        (-10, -11, -14, -13, 0.1, 0.1, 0.618139),
        (-10, -11, -14, -13, 0.5, 0.0, 0.313262),
        # dpo_norm takes means over 10 chosen and 20 rejected tokens.
        (-1.0, -0.55, -1.4, -0.65, 5.0, 0.0, 0.201413),
        (-3, -7, -3, -7, 5.0, 0.0, math.log(2)),
    ],
)
def test_dpo(
    chosen: float, rejected: float, ref_chosen: float, ref_rejected: float, beta: float, smoothing: float, expected: float
) -> None:
    loss, _ = dpo_loss(t(chosen), t(rejected), t(ref_chosen), t(ref_rejected), beta, smoothing)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_dpo_sums_over_pairs_and_reports_rewards() -> None:
    loss, metrics = dpo_loss(t(-10, -11), t(-11, -10), t(-14, -13), t(-13, -14), 0.1)
    assert loss.item() == pytest.approx(0.598139 + 0.798139, abs=1e-6)  # the second pair is the first one swapped
    means = {name: (total / count).item() for name, (total, count) in metrics.items()}
    assert means["accuracy"] == 0.5
    assert means["margin"] == pytest.approx(0.0)
    assert means["reward_chosen"] == pytest.approx(0.3)  # 0.1 · (4 + 2) / 2
    assert means["logp_chosen"] == -10.5


def test_simpo() -> None:
    assert simpo_loss(t(-0.5), t(-1.1), beta=2.0, gamma_beta_ratio=0.3)[0].item() == pytest.approx(0.437488, abs=1e-6)
    smoothed = simpo_loss(t(-0.5), t(-1.1), 2.0, 0.3, label_smoothing=0.1)[0].item()
    assert smoothed == pytest.approx(0.9 * 0.437488 + 0.1 * 1.037488, abs=1e-6)


@pytest.mark.parametrize(
    ("chosen", "rejected", "margin", "centre", "expected"),
    [
        (1.5, 0.5, 0.0, 0.0, 0.313262),
        (1.5, 0.5, 1.0, 0.0, math.log(2)),
        (1.5, 0.5, 0.0, 0.01, 0.353262),  # + 0.01 · 2²
        (0.5, 0.5, 0.0, 0.0, math.log(2)),
    ],
)
def test_bradley_terry(chosen: float, rejected: float, margin: float, centre: float, expected: float) -> None:
    loss, _ = bradley_terry_loss(t(chosen), t(rejected), t(margin), centre)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_bradley_terry_counts_a_tie_as_wrong() -> None:
    _, metrics = bradley_terry_loss(t(1.0, 2.0), t(1.0, 1.0))
    assert [metrics[name][0].item() for name in ("accuracy", "ties")] == [1.0, 1.0]


def test_far_apart_rewards_stay_finite() -> None:
    chosen = t(-1000.0).requires_grad_()
    loss, _ = bradley_terry_loss(chosen, t(1000.0))
    loss.backward()
    assert loss.item() == 2000.0
    assert chosen.grad is not None
    assert chosen.grad.item() == -1.0


def log_ratio(*ratios: float) -> Tensor:
    """Log-probs under which `old` = 0 gives these ratios."""
    return torch.log(t(*ratios)).requires_grad_()


def test_grpo_clips_on_both_sides() -> None:
    # ratio [1.5, 0.5, 1], A 1, clip 0.2: terms -[1.2, 0.5, 1.0], clipped [1, 0, 0].
    logps = log_ratio(1.5, 0.5, 1.0)
    loss, metrics = grpo_loss(logps, torch.zeros_like(logps), torch.ones_like(logps))
    loss.backward()
    assert loss.item() == pytest.approx(-2.7)
    assert metrics["clipped"][0].item() == 1
    assert logps.grad is not None
    # No gradient past the clip; elsewhere -A · ratio.
    assert logps.grad.tolist() == pytest.approx([0.0, -0.5, -1.0])


def test_grpo_with_a_negative_advantage_clips_below() -> None:
    logps = log_ratio(1.5, 0.5, 1.0)
    loss, metrics = grpo_loss(logps, torch.zeros_like(logps), -torch.ones_like(logps))
    loss.backward()
    assert loss.item() == pytest.approx(1.5 + 0.8 + 1.0)
    assert metrics["clipped"][0].item() == 1
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx([1.5, 0.0, 1.0])


def test_clip_higher_moves_the_upper_bound_alone() -> None:
    logps = log_ratio(1.25, 1.3, 0.7)
    loss, _ = grpo_loss(logps, torch.zeros_like(logps), t(1, 1, -1), clip_low=0.2, clip_high=0.272)
    assert loss.item() == pytest.approx(-1.25 - 1.272 + 0.8)


def test_on_policy_grpo_is_the_policy_gradient() -> None:
    logps = t(-1.0, -2.0, -0.5).requires_grad_()
    advantage = t(2.0, -1.0, 0.5)
    grpo_loss(logps, logps.detach(), advantage)[0].backward()
    assert logps.grad is not None
    assert logps.grad.tolist() == pytest.approx((-advantage).tolist())


def test_the_correction_multiplies_the_policy_term_and_not_the_kl() -> None:
    logps = t(-1.0, -2.0)
    loss, metrics = grpo_loss(
        logps,
        logps,
        t(1.0, -1.0),
        weight_N=t(0.5, 2.0),
        correction_N=t(2.0, 0.5),
        kl_N=lambda ratio: 3.0 * ratio,
        beta=0.1,
    )
    # Token 1: 0.5 · (-1 · 2 + 0.3); token 2: 2 · (1 · 0.5 + 0.3).
    assert loss.item() == pytest.approx(0.5 * -1.7 + 2 * 0.8)
    assert metrics["kl"][0].item() == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("name", "d", "ratio", "expected"),
    [
        ("k1", 0.3, 1.0, 0.3),
        ("k2", 0.3, 1.0, 0.045),
        ("k3", 0.3, 1.0, 0.040818),
        ("k4", 0.3, math.exp(0.2), 0.366421),
        ("k1", -0.3, 1.0, -0.3),
        ("k2", -0.3, 1.0, 0.045),
        ("k3", -0.3, 1.0, 0.049859),
    ],
)
def test_kl(name: str, d: float, ratio: float, expected: float) -> None:
    assert kl_estimate(t(-1 + d), t(-1), name, t(ratio)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "gradient"),
    [
        ("k1", lambda d: 1.0),
        ("k2", lambda d: d),
        ("k3", lambda d: 1 - math.exp(-d)),
        ("k4", lambda d: d + 1),
    ],
)
def test_kl_gradients_on_policy(name: str, gradient: Callable[[float], float]) -> None:
    # losses.md §9: what each estimator is as a loss term, in multiples of the gradient of log π.
    for d in (0.3, -0.3):
        logps = t(-1 + d).requires_grad_()
        kl_estimate(logps, t(-1), name, torch.exp(logps - logps.detach())).backward()
        assert logps.grad is not None
        assert logps.grad.item() == pytest.approx(gradient(d))


@pytest.mark.parametrize("name", KL)
def test_kl_is_zero_for_equal_policies_and_finite_for_distant_ones(name: str) -> None:
    assert kl_estimate(t(-1), t(-1), name).item() == 0.0
    assert kl_estimate(t(-1e4), t(0), name).isfinite().all()


def test_k4_without_a_ratio_is_on_policy() -> None:
    assert kl_estimate(t(-0.7), t(-1), "k4").item() == pytest.approx(0.3)


def test_truncated_ratio() -> None:
    ratios = t(0.25, 0.5, 1, 2, 4)
    found = truncated(sampler_ratio(torch.log(ratios).requires_grad_(), torch.zeros_like(ratios)), None, 2.0)
    assert found.tolist() == pytest.approx([0.25, 0.5, 1, 2, 2])
    assert not found.requires_grad
    # A sampler that is sure of what the learner rules out: the log-ratio is clamped to ±10.
    assert sampler_ratio(t(-1e3), t(0)).item() == pytest.approx(math.exp(-10))
    assert sampler_ratio(t(0), t(-1e3)).item() == pytest.approx(math.exp(10))
