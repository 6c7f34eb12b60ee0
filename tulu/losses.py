"""Losses as pure functions: tensors in, (sum, metrics) out. The division by a global count happens once, in train/step.py.

Metrics are pairs (sum, count), so that they too are exact whatever the micro-batches and ranks.
Shape letters: N trained tokens, C completions, P pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Metrics = dict[str, tuple[Tensor, Tensor]]
Loss = tuple[Tensor, Metrics]

KL_CLAMP = 40.0
"""Largest |log-ratio| that a KL estimator sees (open-instruct model_utils.py:estimate_kl @ e6c3044a)."""
RATIO_CLAMP = 10.0
"""Largest |log-ratio| between learner and sampler (open-instruct grpo_utils.py @ e6c3044a)."""

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices that have no numbers of 64 bits."""


def exact_dtype(device: torch.device) -> torch.dtype:
    """The widest numbers of a device, in which sums over many rows are kept."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def mean_metric(values: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The (sum, count) of values, from which their mean over all batches and processes is taken."""
    # A tensor that is made of a number waits for the device, one that is filled with it does not.
    return values.detach().sum().to(exact_dtype(values.device)), values.new_full((), values.numel()) if count is None else count


@dataclass(frozen=True)
class Owners:
    """Which completion each of N tokens belongs to, for what is taken over whole completions."""

    owner_N: Tensor
    """The completion of each token, ascending."""
    count: int
    """Number of completions."""

    def spread(self, values_N: Tensor, mean: bool) -> Tensor:
        """(N,) the sum, or the mean, of the values over each token's completion."""
        reduce = mean_by_owner if mean else sum_by_owner
        return reduce(values_N, self.owner_N, self.count)[self.owner_N]


def owners_of(owners: Owners | None) -> Owners:
    """The owners, which what is taken over completions cannot do without."""
    if owners is None:
        raise ValueError("what is taken over whole completions needs to know which tokens are whose")
    return owners


def sum_by_owner(values_N: Tensor, owner_N: Tensor, n_completions: int) -> Tensor:
    """(C,) sums of (N,) values over the tokens of each completion."""
    return values_N.new_zeros(n_completions).index_add(0, owner_N, values_N)


def mean_by_owner(values_N: Tensor, owner_N: Tensor, n_completions: int) -> Tensor:
    """(C,) means over each completion's trained tokens; 0 where it has none, never NaN."""
    count_C = sum_by_owner(torch.ones_like(values_N), owner_N, n_completions)
    return sum_by_owner(values_N, owner_N, n_completions) / count_C.clamp(min=1)


def sft_loss(logps_N: Tensor, weight_N: Tensor | None = None) -> Loss:
    """Negative log-likelihood, with each token weighted where weights are given."""
    loss_N = -logps_N if weight_N is None else -logps_N * weight_N
    return loss_N.sum(), {"nll": mean_metric(-logps_N)}


def dpo_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    ref_chosen_P: Tensor,
    ref_rejected_P: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Loss:
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7; smoothing: Mitchell 2023) on sequence log-probs.

    Sums of token log-probs give `dpo`, means give `dpo_norm` (open-instruct dpo_utils.py:dpo_loss @ e6c3044a).
    """
    reward_chosen_P, reward_rejected_P = beta * (chosen_P - ref_chosen_P), beta * (rejected_P - ref_rejected_P)
    loss_P = _smoothed(reward_chosen_P - reward_rejected_P, label_smoothing)
    return loss_P.sum(), _preference_metrics(reward_chosen_P, reward_rejected_P, logp_chosen=chosen_P, logp_rejected=rejected_P)


def simpo_loss(chosen_P: Tensor, rejected_P: Tensor, beta: float, gamma_beta_ratio: float, label_smoothing: float = 0.0) -> Loss:
    """SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6) on length-averaged log-probs, without a reference."""
    loss_P = _smoothed(beta * (chosen_P - rejected_P - gamma_beta_ratio), label_smoothing)
    metrics = _preference_metrics(beta * chosen_P, beta * rejected_P, logp_chosen=chosen_P, logp_rejected=rejected_P)
    return loss_P.sum(), metrics


def _smoothed(logit_P: Tensor, label_smoothing: float) -> Tensor:
    return -(1 - label_smoothing) * logsigmoid(logit_P) - label_smoothing * logsigmoid(-logit_P)


def _preference_metrics(reward_chosen_P: Tensor, reward_rejected_P: Tensor, **others_P: Tensor) -> Metrics:
    return {
        "accuracy": mean_metric((reward_chosen_P > reward_rejected_P).float()),
        "margin": mean_metric(reward_chosen_P - reward_rejected_P),
        "reward_chosen": mean_metric(reward_chosen_P),
        "reward_rejected": mean_metric(reward_rejected_P),
        **{name: mean_metric(values_P) for name, values_P in others_P.items()},
    }


def bradley_terry_loss(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | float = 0.0, centre: float = 0.0) -> Loss:
    """Bradley-Terry with margin and centring: -log σ(r_c - r_r - m) + c (r_c + r_r)² (TRL RewardTrainer, arXiv 2312.09244)."""
    loss_P = -logsigmoid(chosen_P - rejected_P - margin_P)
    if centre:
        loss_P = loss_P + centre * (chosen_P + rejected_P) ** 2
    return loss_P.sum(), _preference_metrics(chosen_P, rejected_P, ties=(chosen_P == rejected_P).float())


KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": lambda d, ratio: d,
    "k2": lambda d, ratio: d**2 / 2,
    "k3": lambda d, ratio: torch.expm1(-d) + d,
    "k4": lambda d, ratio: ratio * d,
}
"""Estimators of KL(policy || reference) per token from d = logp - ref, by name (Schulman 2020; k4 = ratio · d)."""


def kl_estimate(logps_N: Tensor, ref_N: Tensor, estimator: str, ratio_N: Tensor | None = None) -> Tensor:
    """(N,) estimates of the KL per token; k4 needs the ratio of the policy to the one that sampled."""
    d_N = (logps_N - ref_N).clamp(-KL_CLAMP, KL_CLAMP)
    return KL[estimator](d_N, torch.ones_like(d_N) if ratio_N is None else ratio_N)


def sampler_ratio(old_N: Tensor, sampler_N: Tensor, level: str = "token", owners: Owners | None = None) -> Tensor:
    """(N,) ratios ρ of the learner's probability to the sampler's, without gradient, by which an update is corrected for an
    engine whose arithmetic or weights differ.

    `token` takes every token's own ratio; `sequence` the product over its completion, the ratio by which importance sampling
    is unbiased for whole completions; `geometric` the product's root, exp(mean of the log-ratios), which does not grow with the
    length (open-instruct grpo_utils.py, rho_mask_sequence_level @ e6c3044a).
    """
    x_N = (old_N - sampler_N).clamp(-RATIO_CLAMP, RATIO_CLAMP)
    if level != "token":
        x_N = owners_of(owners).spread(x_N, mean=level == "geometric").clamp(-RATIO_CLAMP, RATIO_CLAMP)
    return torch.exp(x_N).detach()


def truncated(ratio_N: Tensor, floor: float | None, cap: float | None) -> Tensor:
    """TIS: max(floor, min(ρ, cap)), so that no ratio makes a step large (truncated importance sampling, Ionides 2008; of
    tokens: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training")."""
    return ratio_N if floor is None and cap is None else ratio_N.clamp(floor, cap)


def masked(ratio_N: Tensor, floor: float | None, cap: float | None) -> Tensor:
    """MIS: ρ within the bounds and 0 outside, so that nothing is learned where learner and sampler disagree (of tokens with
    both bounds: IcePop, "Every Step Evolves", arXiv 2510.18855; of completions with a cap: Liu et al. 2025, "When Speed Kills
    Stability")."""
    return ratio_N * (~outside(ratio_N, floor, cap)).to(ratio_N)


def outside(ratio_N: Tensor, floor: float | None, cap: float | None) -> Tensor:
    """(N,) whether a ratio is beyond the bounds."""
    beyond_N = torch.zeros_like(ratio_N, dtype=torch.bool)
    if floor is not None:
        beyond_N = beyond_N | (ratio_N < floor)
    return beyond_N if cap is None else beyond_N | (ratio_N > cap)


def sequence_ratio(logps_N: Tensor, old_N: Tensor, owners: Owners) -> Tensor:
    """(N,) GSPO's ratio s = (π(y) / π_old(y))^(1/|y|) of each token's completion ("Group Sequence Policy Optimization", arXiv
    2507.18071, eq. 7), as eq. 14 writes it for tokens: sg[s] · π(y_t) / sg[π(y_t)].

    Where the tokens of a completion share advantage and weight, the gradients of both forms are equal; where advantages differ
    from token to token, each token follows its own.
    """
    mean_N = owners.spread((logps_N - old_N).detach(), mean=True)
    return torch.exp(mean_N + logps_N - logps_N.detach())


def clipped_surrogate(ratio_N: Tensor, advantage_N: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) ("Proximal Policy Optimization Algorithms", arXiv 1707.06347, eq. 7; the two
    bounds apart: DAPO, arXiv 2503.14476, eq. 8), and whether the clipped side is taken, where there is no gradient."""
    unclipped_N = -advantage_N * ratio_N
    clipped_N = -advantage_N * ratio_N.clamp(1 - low, 1 + high)
    return torch.maximum(unclipped_N, clipped_N), clipped_N > unclipped_N


def cispo_surrogate(logps_N: Tensor, ratio_N: Tensor, advantage_N: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """-A · sg[clip(r, 1 - low, 1 + high)] · logp (CISPO, "MiniMax-M1", arXiv 2506.13585, eq. 4 and 5), and whether r is clipped.

    Every token keeps a gradient, only its weight is bounded. The paper sets no lower bound, which is a `low` of 1.
    """
    weight_N = ratio_N.clamp(1 - low, 1 + high).detach()
    return -advantage_N * weight_N * logps_N, weight_N != ratio_N


def grpo_loss(
    logps_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    *,
    surrogate: str = "clip",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    owners: Owners | None = None,
    weight_N: Tensor | None = None,
    correction_N: Tensor | None = None,
    kl_N: Callable[[Tensor], Tensor] | None = None,
    beta: float = 0.0,
    entropy_N: Tensor | None = None,
    entropy_bonus: float = 0.0,
) -> Loss:
    """A policy gradient per token, ρ · g(r, A) + β · KL - c · H, summed ("DeepSeekMath", arXiv 2402.03300, eq. 3; the token
    denominator: DAPO, arXiv 2503.14476, eq. 8; the bonus c for entropy H: arXiv 1602.01783, section 4).

    g is the `clip`ped surrogate of PPO and GRPO, that of `cispo`, or under `gspo` the clipped one with a ratio for whole
    completions, which needs `owners`. `weight_N` carries a per-sequence denominator, `correction_N` the importance ratio ρ to
    the sampler, which multiplies g alone. `kl_N` takes the ratio and returns the KL per token.
    """
    token_ratio_N = torch.exp(logps_N - old_N)
    ratio_N = sequence_ratio(logps_N, old_N, owners_of(owners)) if surrogate == "gspo" else token_ratio_N
    if surrogate == "cispo":
        loss_N, clipped_N = cispo_surrogate(logps_N, ratio_N, advantage_N, clip_low, clip_high)
    else:
        loss_N, clipped_N = clipped_surrogate(ratio_N, advantage_N, clip_low, clip_high)
    if correction_N is not None:
        loss_N = loss_N * correction_N
    metrics = {"clipped": mean_metric(clipped_N.float()), "ratio": mean_metric(ratio_N)}
    if kl_N is not None:
        divergence_N = kl_N(token_ratio_N)
        loss_N = loss_N + beta * divergence_N
        metrics["kl"] = mean_metric(divergence_N)
    if entropy_bonus and entropy_N is not None:
        loss_N = loss_N - entropy_bonus * entropy_N
    if weight_N is not None:
        loss_N = loss_N * weight_N
    return loss_N.sum(), metrics


def value_loss(values_N: Tensor, old_N: Tensor, returns_N: Tensor, clip: float, weight_N: Tensor | None = None) -> Loss:
    """½ · max((V - R)², (V_clip - R)²) with V_clip = V_old + clip(V - V_old, ±clip), summed over states (PPO, as in
    open-instruct, ppo_vllm_thread_ray_gtrl.py @ bac93931^)."""
    clipped_N = old_N + (values_N - old_N).clamp(-clip, clip)
    error_N, clipped_error_N = (values_N - returns_N).square(), (clipped_N - returns_N).square()
    loss_N = 0.5 * torch.maximum(error_N, clipped_error_N)
    metrics = {"value_error": mean_metric(error_N), "value_clipped": mean_metric((clipped_error_N > error_N).float())}
    return (loss_N if weight_N is None else loss_N * weight_N).sum(), metrics
