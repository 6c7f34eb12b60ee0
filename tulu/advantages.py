"""Advantages from the rewards of a group: (G,) in, (G,) out; a sample that could not be judged is NaN in both."""

from collections.abc import Callable

import torch
from torch import Tensor


def centred(rewards_G: Tensor) -> Tensor:
    """s - μ (Dr. GRPO, arXiv 2503.20783; open-instruct's default since #1547)."""
    return rewards_G - rewards_G.nanmean()


def standard(rewards_G: Tensor, ddof: int = 0) -> Tensor:
    """(s - μ) / (σ + 1e-8): ddof 1 in Tülu 3.1's code, 0 in grpo_fast (open-instruct @ 745bf58d and e6c3044a)."""
    judged_G = rewards_G[~rewards_G.isnan()]
    sigma = judged_G.std(correction=ddof) if len(judged_G) > ddof else rewards_G.new_zeros(())
    return centred(rewards_G) / (sigma + 1e-8)


def leave_one_out(rewards_G: Tensor) -> Tensor:
    """s minus the mean of the others (RLOO, arXiv 2402.14740), which is (s - μ) · G / (G - 1)."""
    judged = int((~rewards_G.isnan()).sum())
    return centred(rewards_G) * (judged / max(judged - 1, 1))


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {"centred": centred, "standard": standard, "loo": leave_one_out}


def group_advantages(rewards_G: Tensor, mode: str, ddof: int = 0) -> Tensor:
    """Advantages of one group by the recipe's name for them."""
    if mode == "standard":
        return standard(rewards_G, ddof)
    return ADVANTAGES[mode](rewards_G)


def has_signal(rewards_G: Tensor) -> bool:
    """Whether the group teaches anything: at least two judged rewards that differ."""
    judged_G = rewards_G[~rewards_G.isnan()]
    return len(judged_G) > 1 and bool((judged_G != judged_G[0]).any())


def gae(rewards_T: Tensor, values_T: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns of one completion (Schulman et al. 2015, arXiv 1506.02438)."""
    advantages_T = torch.zeros_like(rewards_T)
    running = rewards_T.new_zeros(())
    for t in range(len(rewards_T) - 1, -1, -1):
        next_value = values_T[t + 1] if t + 1 < len(values_T) else 0.0
        running = rewards_T[t] + gamma * next_value - values_T[t] + gamma * lam * running
        advantages_T[t] = running
    return advantages_T, advantages_T + values_T
