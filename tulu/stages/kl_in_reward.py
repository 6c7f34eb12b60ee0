"""KL to the starting model taken off the reward of every completion, before the completions of a group are compared."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from tulu.advantages import group_advantages
from tulu.config.schema import Rlvr
from tulu.losses import kl_estimate, sum_by_owner
from tulu.model.sending import send
from tulu.rollout.batches import RolloutBatch


def compare_less_kl(rows: Sequence[RolloutBatch], stage: Rlvr) -> Sequence[RolloutBatch]:
    """The rows of whole groups, whose advantages are rewards until now, with the advantages of reward - β · Σ_t KL_t.

    The KL of each token is that of the policy before the update; it is in the rewards then, and no longer in the loss. That is
    the reward of RLHF for a completion as a single action, r(x, y) - β log(π(y) / π_ref(y)) with k1 ("Back to Basics: Revisiting
    REINFORCE Style Optimization", arXiv 2402.14740, section 2).
    """
    divergences, sums = [], []
    for row in rows:
        if row.old_logps_N is None or row.kl_reference_N is None:
            raise ValueError("rewards less KL need the log-probs from before the update, and those of the starting model")
        divergences.append(kl_estimate(row.old_logps_N, row.kl_reference_N, stage.kl))
        sums.append(sum_by_owner(divergences[-1], row.owner_N, row.n_completions))
    # A group may lie in several rows. All numbers are fetched at once, because each fetch waits for the device.
    places = [(number, place) for number, row in enumerate(rows) for place in range(row.n_completions)]
    rewards = torch.cat([row.advantage_C for row in rows]).tolist() if rows else []
    penalties = torch.cat(sums).tolist() if rows else []
    groups: dict[int, list[tuple[int, int, int, float]]] = defaultdict(list)
    for (number, place), reward, penalty in zip(places, rewards, penalties, strict=True):
        group, completion = rows[number].index_C[place]
        groups[group].append((completion, number, place, reward - stage.beta * penalty))
    found = [[0.0] * row.n_completions for row in rows]
    for members in groups.values():
        # A group's numbers are added up in the same order whatever its rows are.
        members.sort()
        worth = torch.tensor([member[3] for member in members], dtype=torch.float64)
        advantages = group_advantages(worth, stage.advantage, stage.ddof).tolist()
        for (_, number, place, _), advantage in zip(members, advantages, strict=True):
            found[number][place] = advantage
    return [
        replace(
            row,
            advantage_C=send(torch.tensor(advantages, dtype=row.advantage_C.dtype), row.advantage_C.device),
            kl_N=divergence_N,
            kl_reference_N=None,
            # Ratios compare with it only where the recipe says so.
            old_logps_N=row.old_logps_N if stage.old == "step" else None,
        )
        for row, advantages, divergence_N in zip(rows, found, divergences, strict=True)
    ]
