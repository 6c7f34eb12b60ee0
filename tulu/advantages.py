"""Advantages from the rewards of a group: (G,) in, (G,) out. A sample whose grading failed is NaN in both."""

from collections.abc import Callable

import torch
from torch import Tensor


def centred(rewards_G: Tensor) -> Tensor:
    """s - μ (Dr. GRPO, arXiv 2503.20783; open-instruct's default since #1547)."""
    return rewards_G - rewards_G.nanmean()


def standard(rewards_G: Tensor, ddof: int = 0) -> Tensor:
    """(s - μ) / (σ + 1e-8): ddof 1 in Tülu 3.1's code, 0 in grpo_fast (open-instruct @ 745bf58d and e6c3044a)."""
    graded_G = rewards_G[~rewards_G.isnan()]
    sigma = graded_G.std(correction=ddof) if len(graded_G) > ddof else rewards_G.new_zeros(())
    return centred(rewards_G) / (sigma + 1e-8)


def leave_one_out(rewards_G: Tensor) -> Tensor:
    """s minus the mean of the others (RLOO, arXiv 2402.14740), which is (s - μ) · G / (G - 1)."""
    graded = int((~rewards_G.isnan()).sum())
    return centred(rewards_G) * (graded / max(graded - 1, 1))


ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {"centred": centred, "loo": leave_one_out}
"""Advantages by the recipe's name for them; `standard` has a parameter of its own."""


def group_advantages(rewards_G: Tensor, mode: str, ddof: int = 0) -> Tensor:
    """Advantages of one group by the recipe's name for them; under gae the rewards, which a value model spreads over tokens.

    Under none they are 0, also where grading failed: what is trained does not depend on the rewards.
    """
    if mode == "gae":
        return rewards_G
    if mode == "none":
        return torch.zeros_like(rewards_G)
    if mode == "standard":
        return standard(rewards_G, ddof)
    return ADVANTAGES[mode](rewards_G)


def has_signal(rewards_G: Tensor) -> bool:
    """Whether the group teaches anything, which takes at least two rewards that differ."""
    graded_G = rewards_G[~rewards_G.isnan()]
    return len(graded_G) > 1 and bool((graded_G != graded_G[0]).any())


def gae(rewards_T: Tensor, values_T: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns of one completion (Schulman et al. 2015, arXiv 1506.02438).

    values_T[t] is the value of the state before token t; after the last token it is 0.
    """
    rewards, values = rewards_T.tolist(), [*values_T.tolist(), 0.0]
    advantages = [0.0] * len(rewards)
    running = 0.0
    # The loop runs over plain numbers, because a loop over a tensor's elements would start a kernel for every sum.
    for t in reversed(range(len(rewards))):
        running = rewards[t] + gamma * values[t + 1] - values[t] + gamma * lam * running
        advantages[t] = running
    advantages_T = torch.tensor(advantages, dtype=values_T.dtype)
    return advantages_T, advantages_T + values_T.cpu()
