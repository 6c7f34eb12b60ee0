"""Losses as pure functions: tensors in, (sum, metrics) out. The division by a global count happens once, in train/step.py.

Metrics are pairs (sum, count), so that they too are exact whatever the micro-batches and ranks.
Shape letters: N trained tokens, C completions, P pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Metrics = dict[str, tuple[Tensor, Tensor]]
Loss = tuple[Tensor, Metrics]

KL_CLAMP = 40.0
"""Largest |log-ratio| that a KL estimator sees (open-instruct model_utils.py:estimate_kl @ e6c3044a)."""
RATIO_CLAMP = 10.0
"""Largest |log-ratio| between learner and sampler (open-instruct grpo_utils.py @ e6c3044a)."""


def mean_metric(values: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The (sum, count) of values, from which their mean over all batches and processes is taken."""
    # A tensor that is made of a number waits for the device, one that is filled with it does not.
    return values.detach().sum().double(), values.new_full((), values.numel()) if count is None else count


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


def truncated_ratio(old_N: Tensor, sampler_N: Tensor, cap: float) -> Tensor:
    """min(old / sampler, cap) without gradient: truncated importance sampling, for an engine whose arithmetic differs."""
    return torch.exp((old_N - sampler_N).clamp(-RATIO_CLAMP, RATIO_CLAMP)).clamp(max=cap).detach()


def grpo_loss(
    logps_N: Tensor,
    old_N: Tensor,
    advantage_N: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    weight_N: Tensor | None = None,
    correction_N: Tensor | None = None,
    kl_N: Callable[[Tensor], Tensor] | None = None,
    beta: float = 0.0,
) -> Loss:
    """Clipped policy gradient per token, ρ · max(-A r, -A clip(r)) + β · KL, summed (losses: DeepSeekMath, arXiv 2402.03300;
    clip-higher and the token denominator: DAPO, arXiv 2503.14476).

    `weight_N` carries a per-sequence denominator, `correction_N` the truncated importance ratio; the correction
    multiplies the policy term alone. `kl_N` takes the ratio and returns the KL per token.
    """
    ratio_N = torch.exp(logps_N - old_N)
    unclipped_N = -advantage_N * ratio_N
    clipped_N = -advantage_N * ratio_N.clamp(1 - clip_low, 1 + clip_high)
    loss_N = torch.maximum(unclipped_N, clipped_N)
    if correction_N is not None:
        loss_N = loss_N * correction_N
    metrics = {"clipped": mean_metric((clipped_N > unclipped_N).float()), "ratio": mean_metric(ratio_N)}
    if kl_N is not None:
        divergence_N = kl_N(ratio_N)
        loss_N = loss_N + beta * divergence_N
        metrics["kl"] = mean_metric(divergence_N)
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
