"""Losses of reinforcement learning: numbers worked by hand, and float64 gradients against loops over tokens (policy_oracle)."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.policy_oracle import Sampled, Terms, oracle
from tulu.losses import Owners, grpo_loss, kl_estimate, masked, outside, sampler_ratio, truncated

TWO_AND_ONE = Owners(torch.tensor([0, 0, 1]), 2)
"""A completion of two tokens and one of a single token."""


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log(*ratios: float) -> Tensor:
    """Log-probs under which log-probs of 0 before give these ratios."""
    return t(*ratios).log().requires_grad_()


def gradient(leaf: Tensor) -> list[float]:
    assert leaf.grad is not None
    found: list[float] = leaf.grad.tolist()
    return found


@pytest.mark.parametrize(("low", "weights"), [(1.0, [1.2, 0.5, 1.0]), (0.2, [1.2, 0.8, 1.0])])
def test_cispo_bounds_the_weight_and_keeps_every_gradient(low: float, weights: list[float]) -> None:
    logps = log(1.5, 0.5, 1.0)
    loss, metrics = grpo_loss(logps, t(0, 0, 0), t(1, 1, 1), surrogate="cispo", clip_low=low, clip_high=0.2)
    loss.backward()
    # -A · weight · logp with logp = ln 1.5, ln 0.5, 0.
    assert loss.item() == pytest.approx(-(weights[0] * 0.405465 - weights[1] * 0.693147), abs=1e-6)
    assert gradient(logps) == pytest.approx([-weight for weight in weights])
    assert metrics["clipped"][0].item() == (1 if low == 1.0 else 2)


def test_gspo_clips_whole_completions() -> None:
    # Ratios 2 and 1/2 make s = √1 = 1, which is not clipped, though each token's would be; the other's s of 1.5 is.
    logps = log(2.0, 0.5, 1.5)
    loss, metrics = grpo_loss(logps, t(0, 0, 0), t(1, 1, 2), surrogate="gspo", weight_N=t(0.5, 0.5, 1.0), owners=TWO_AND_ONE)
    loss.backward()
    assert loss.item() == pytest.approx(-1.0 - 2 * 1.2)
    # d s / d logp = s / |y|.
    assert gradient(logps) == pytest.approx([-0.5, -0.5, 0.0])
    assert metrics["clipped"][0].item() == 1
    assert metrics["ratio"][0].item() == pytest.approx(1 + 1 + 1.5)


def test_gspo_with_an_advantage_per_token_follows_each() -> None:
    # The paper's GSPO-token: the gradient of a token is s · A_t, here with s = 1.
    logps = log(2.0, 0.5, 1.0)
    grpo_loss(logps, t(0, 0, 0), t(3, -1, 2), surrogate="gspo", owners=TWO_AND_ONE)[0].backward()
    assert gradient(logps) == pytest.approx([-3.0, 1.0, -2.0])


def test_what_is_taken_over_completions_needs_to_know_them() -> None:
    for call in (partial(grpo_loss, surrogate="gspo"), lambda *three: sampler_ratio(three[0], three[1], "sequence")):
        with pytest.raises(ValueError, match="which tokens are whose"):
            call(t(0), t(0), t(0))


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("token", [1.648721, 0.904837, 1.105171]),
        # x = 0.5 - 0.1 together, and 0.2 on average.
        ("sequence", [1.491825, 1.491825, 1.105171]),
        ("geometric", [1.221403, 1.221403, 1.105171]),
    ],
)
def test_the_ratio_to_the_sampler_at_every_level(level: str, expected: list[float]) -> None:
    old = t(-1.0, -1.1, -0.9).requires_grad_()
    found = sampler_ratio(old, t(-1.5, -1.0, -1.0), level, TWO_AND_ONE)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert not found.requires_grad


def test_the_product_over_a_long_completion_stays_finite() -> None:
    long = Owners(torch.zeros(5000, dtype=torch.long), 1)
    for sign in (1, -1):
        found = sampler_ratio(sign * torch.ones(5000), torch.zeros(5000), "sequence", long)
        assert found[0].item() == pytest.approx(math.exp(sign * 10))


@pytest.mark.parametrize(
    ("floor", "cap", "cut", "left_out"),
    [
        (0.5, 2.0, [0.5, 0.5, 1, 2, 2], [0, 0.5, 1, 2, 0]),
        (None, 2.0, [0.25, 0.5, 1, 2, 2], [0.25, 0.5, 1, 2, 0]),
        (0.5, None, [0.5, 0.5, 1, 2, 4], [0, 0.5, 1, 2, 4]),
        (None, None, [0.25, 0.5, 1, 2, 4], [0.25, 0.5, 1, 2, 4]),
    ],
)
def test_truncating_and_masking(floor: float | None, cap: float | None, cut: list[float], left_out: list[float]) -> None:
    ratios = t(0.25, 0.5, 1, 2, 4)
    assert truncated(ratios, floor, cap).tolist() == cut
    assert masked(ratios, floor, cap).tolist() == left_out
    assert outside(ratios, floor, cap).tolist() == [here != there for here, there in zip(cut, ratios.tolist(), strict=True)]


def test_the_entropy_bonus_is_weighted_like_its_token_and_not_corrected() -> None:
    entropy = t(0.7, 0.3).requires_grad_()
    loss, _ = grpo_loss(t(0, 0), t(0, 0), t(1, 0), entropy_N=entropy, entropy_bonus=0.1, correction_N=t(5, 5), weight_N=t(1, 0.5))
    loss.backward()
    assert loss.item() == pytest.approx(-5 - 0.07 - 0.015)
    assert gradient(entropy) == pytest.approx([-0.1, -0.05])


CASES = {
    "grpo": Terms(mean_over_tokens=True, beta=0.04),
    "dapo": Terms(high=0.28),
    "cispo": Terms(loss="cispo", low=1.0, high=0.3),
    "cispo with a lower bound": Terms(loss="cispo", low=0.1, high=0.3),
    "gspo": Terms(loss="gspo", low=0.05, high=0.1, mean_over_tokens=True),
    "gspo over tokens, with KL": Terms(loss="gspo", low=0.05, high=0.1, beta=0.1, kl="k2"),
    "gspo, with a KL that takes the token's ratio": Terms(loss="gspo", low=0.05, high=0.1, beta=0.1, kl="k4"),
    "gspo with TIS": Terms(loss="gspo", low=0.05, high=0.1, cap=1.02, level="geometric", mean_over_tokens=True),
    "TIS": Terms(cap=1.1, floor=0.8),
    "TIS of completions": Terms(cap=1.1, level="sequence"),
    "IcePop": Terms(cap=1.3, floor=0.8, mask=True),
    "MIS of completions": Terms(cap=1.1, mask=True, level="sequence"),
    "MIS by the mean": Terms(cap=1.1, floor=0.9, mask=True, level="geometric"),
    "cispo with IcePop, KL and a bonus": Terms(loss="cispo", cap=1.3, floor=0.8, mask=True, beta=0.1, kl="k4", bonus=0.01),
    **{f"KL {name}": Terms(beta=0.3, kl=name) for name in ("k1", "k2", "k3", "k4")},
    "entropy": Terms(bonus=0.05, mean_over_tokens=True),
}


def sampled() -> list[Sampled]:
    """Completions of 1 to 6 tokens, whose policies have drifted apart so far that every bound is passed somewhere."""
    generator = torch.Generator().manual_seed(7)

    def numbers(count: int, size: float) -> Tensor:
        return size * torch.randn(count, generator=generator, dtype=torch.float64)

    completions = []
    for length in (1, 6, 3, 4, 2, 5):
        old = -numbers(length, 1.0).abs() - 0.1
        completions.append(
            Sampled(
                logps=(old + numbers(length, 0.3)).requires_grad_(),
                old=old.tolist(),
                sampler=(old + numbers(length, 0.2)).tolist(),
                advantage=float(numbers(1, 1.0)),
                reference=(old + numbers(length, 0.5)).tolist(),
                entropy=numbers(length, 1.0).abs().requires_grad_(),
            )
        )
    return completions


def ours(completions: list[Sampled], terms: Terms) -> Tensor:
    """The same through the package's functions, all completions in one row."""
    lengths = [len(one.old) for one in completions]
    owner_N = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    owners = Owners(owner_N, len(lengths))
    logps_N = torch.cat([one.logps for one in completions])
    old_N, sampler_N, reference_N = (
        torch.cat([torch.tensor(getattr(one, name), dtype=torch.float64) for one in completions])
        for name in ("old", "sampler", "reference")
    )
    correction: Tensor | None = None
    if terms.cap is not None or terms.floor is not None:
        bound: Any = masked if terms.mask else truncated
        correction = bound(sampler_ratio(old_N, sampler_N, terms.level, owners), terms.floor, terms.cap)
    loss, _ = grpo_loss(
        logps_N,
        old_N,
        t(*(one.advantage for one in completions))[owner_N],
        surrogate=terms.loss,
        clip_low=terms.low,
        clip_high=terms.high,
        owners=owners,
        weight_N=t(*(1 / length for length in lengths))[owner_N] if terms.mean_over_tokens else None,
        correction_N=correction,
        kl_N=partial(kl_estimate, logps_N, reference_N, terms.kl) if terms.beta else None,
        beta=terms.beta,
        entropy_N=torch.cat([one.entropy for one in completions if one.entropy is not None]),
        entropy_bonus=terms.bonus,
    )
    return loss


def leaves(completions: list[Sampled], terms: Terms) -> list[Tensor]:
    found = [one.logps for one in completions]
    return found + [one.entropy for one in completions if one.entropy is not None and terms.bonus]


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_loops_over_tokens(name: str) -> None:
    completions, terms = sampled(), CASES[name]
    loss, expected = ours(completions, terms), oracle(completions, terms)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    # A completion that is clipped is no part of the graph of the loops.
    found = torch.autograd.grad(loss, leaves(completions, terms), materialize_grads=True)
    wanted = torch.autograd.grad(expected, leaves(completions, terms), materialize_grads=True)
    for here, there in zip(found, wanted, strict=True):
        assert torch.allclose(here, there, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_every_term_of_a_case_matters(name: str) -> None:
    """So a case cannot pass because its bounds are never reached."""
    plain = oracle(sampled(), replace(Terms(), mean_over_tokens=CASES[name].mean_over_tokens))
    if CASES[name] != Terms():
        assert abs(oracle(sampled(), CASES[name]).item() - plain.item()) > 1e-4
