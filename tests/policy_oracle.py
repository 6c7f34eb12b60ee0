"""Losses of reinforcement learning token by token, in loops over completions: what papers write, and no code of the package.

`held` marks what the papers treat as a constant: advantages, old log-probs, weights of CISPO and corrections carry no gradient.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class Sampled:
    """One completion: a number per token, and its advantage."""

    logps: Tensor
    old: Sequence[float]
    sampler: Sequence[float]
    advantage: float
    reference: Sequence[float] = ()
    teacher: Sequence[float] = ()
    entropy: Tensor | None = None


@dataclass
class Terms:
    """What a recipe says, under other names."""

    loss: str = "clip"
    low: float = 0.2
    high: float = 0.2
    level: str = "token"
    mask: bool = False
    floor: float | None = None
    cap: float | None = None
    kl: str = "k3"
    beta: float = 0.0
    bonus: float = 0.0
    teacher_weight: float = 0.0
    teacher_loss: str = ""
    mean_over_tokens: bool = False
    """Whether each completion counts once, whatever its length."""


def oracle(completions: Sequence[Sampled], terms: Terms) -> Tensor:
    """The summed loss."""
    total = torch.zeros((), dtype=torch.float64)
    for one in completions:
        tokens = [_token(one, t, terms) for t in range(len(one.old))]
        if terms.loss == "gspo":
            tokens = [token + _whole(one, terms) * _correction(one, t, terms) for t, token in enumerate(tokens)]
        total = total + sum(tokens, torch.zeros((), dtype=torch.float64)) / (len(tokens) if terms.mean_over_tokens else 1)
    return total


def _token(one: Sampled, t: int, terms: Terms) -> Tensor:
    """The term of one token; under GSPO without that of the policy, which is one for the completion."""
    logp = one.logps[t]
    ratio = (logp - one.old[t]).exp()
    advantage = one.advantage
    if terms.teacher_weight and not terms.teacher_loss:
        advantage -= terms.teacher_weight * (one.old[t] - one.teacher[t])
    term = torch.zeros((), dtype=torch.float64)
    if terms.loss == "clip":
        kept = min(max(ratio.item(), 1 - terms.low), 1 + terms.high)
        # The smaller of both objectives; the clipped one is a constant.
        term = (
            -ratio * advantage
            if ratio.item() * advantage <= kept * advantage
            else torch.tensor(-kept * advantage, dtype=torch.float64)
        )
    elif terms.loss == "cispo":
        term = -min(max(ratio.item(), 1 - terms.low), 1 + terms.high) * advantage * logp
    term = term * _correction(one, t, terms)
    if terms.beta:
        term = term + terms.beta * _kl(terms.kl, logp - one.reference[t], ratio)
    if terms.teacher_loss:
        term = term + terms.teacher_weight * _kl(terms.teacher_loss, logp - one.teacher[t], ratio)
    if terms.bonus and one.entropy is not None:
        term = term - terms.bonus * one.entropy[t]
    return term


def _whole(one: Sampled, terms: Terms) -> Tensor:
    """min(s A, clip(s) A) of the completion with s = (π(y) / π_old(y))^(1/|y|), negated."""
    length = len(one.old)
    s = ((one.logps.sum() - math.fsum(one.old)) / length).exp()
    kept = min(max(s.item(), 1 - terms.low), 1 + terms.high)
    return (
        -s * one.advantage
        if s.item() * one.advantage <= kept * one.advantage
        else torch.tensor(-kept * one.advantage, dtype=torch.float64)
    )


def _kl(name: str, d: Tensor, ratio: Tensor) -> Tensor:
    return {"k1": d, "k2": d * d / 2, "k3": (-d).exp() - 1 + d, "k4": ratio * d}[name]


def _correction(one: Sampled, t: int, terms: Terms) -> float:
    """How much the sampler's distribution makes of the token's term."""
    if terms.floor is None and terms.cap is None:
        return 1.0
    logs = [old - sampler for old, sampler in zip(one.old, one.sampler, strict=True)]
    ratio = {
        "token": math.exp(logs[t]),
        "sequence": math.prod(math.exp(log) for log in logs),
        "geometric": math.prod(math.exp(log) for log in logs) ** (1 / len(logs)),
    }[terms.level]
    below, above = terms.floor is not None and ratio < terms.floor, terms.cap is not None and ratio > terms.cap
    if terms.mask:
        return 0.0 if below or above else ratio
    return (terms.floor or 0.0) if below else (terms.cap or 0.0) if above else ratio


@dataclass
class Case:
    """Lines of a recipe and the same for the oracle; `divisor` is made of tokens and completions of one optimizer step."""

    lines: dict[str, Any]
    terms: Terms
    divisor: Callable[[int, int], float] = field(default=lambda tokens, completions: tokens)
    advantage: Callable[[Any], Any] = field(default=lambda worth: worth - worth.mean())
    kl_off_reward: float = 0.0
    penalty: Callable[[int], float] = field(default=lambda length: 0.0)
