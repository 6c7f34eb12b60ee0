"""The policy's loss as a recipe words it: tokens with their advantages, and everything that bounds, corrects or pulls an update.

The mathematics is in tulu/losses.py; docs/recipes.md lists the fields of each published algorithm.
"""

from functools import partial

from torch import Tensor

from tulu.config.schema import Rlvr, ValueModelSettings
from tulu.losses import (
    KL,
    Loss,
    Owners,
    grpo_loss,
    kl_estimate,
    masked,
    mean_metric,
    outside,
    sampler_ratio,
    truncated,
)
from tulu.model.policy import Policy
from tulu.rollout.batches import RolloutBatch
from tulu.rollout.token_notes import TokenNotes
from tulu.stages.denominator import token_weights, value_weights
from tulu.stages.ppo import ActorCritic, PpoBatch, ppo_loss

CORRECTIONS = {"truncate": truncated, "mask": masked}
"""What becomes of ratios between learner and sampler that are outside their bounds, by the recipe's name for it."""


def ratio_moves(stage: Rlvr) -> bool:
    """Whether the ratio to the log-probs before can be another than 1 when a mini-batch is trained."""
    moved_before = stage.updates > 1 or (stage.old == "step" and stage.minibatches > 1)
    return moved_before or (stage.lora is not None and stage.lora.dropout > 0)


def grpo(policy: Policy, stage: Rlvr, batch: RolloutBatch, notes: TokenNotes | None = None) -> Loss:
    """The policy's loss, every token with the advantage of its completion."""
    logps_N, entropy_N = policy.logps_and_entropy(batch, stage.temperature, entropy_gradient=stage.entropy_bonus > 0)
    return policy_loss(logps_N, entropy_N, batch, batch.advantage_C[batch.owner_N], stage, notes)


def ppo(
    critic: ActorCritic,
    stage: Rlvr,
    value: ValueModelSettings,
    index: int,
    batch: PpoBatch,
    notes: TokenNotes | None = None,
) -> Loss:
    """The policy's loss, every token with its own advantage, and the value model's, which learns alone in its warm-up."""
    logps_N, entropy_N, values_M = critic(batch, stage.temperature, entropy_gradient=stage.entropy_bonus > 0)
    policy = policy_loss(logps_N, entropy_N, batch, batch.advantage_N, stage, notes)
    return ppo_loss(policy, values_M, batch, stage, value, value_weights(batch, stage), value_alone=index < value.warmup)


def policy_loss(
    logps_N: Tensor,
    entropy_N: Tensor,
    batch: RolloutBatch,
    advantage_N: Tensor,
    stage: Rlvr,
    notes: TokenNotes | None = None,
) -> Loss:
    """The recipe's policy loss over a batch; `notes` take what is kept of its tokens."""
    old_N = logps_N.detach() if batch.old_logps_N is None else batch.old_logps_N
    owners = Owners(batch.owner_N, batch.n_completions)
    reference_N = batch.kl_reference_N
    weight_C = token_weights(batch, stage)
    weight_N = None if weight_C is None else weight_C[batch.owner_N]
    correction_N, corrected = _correction(old_N, batch.sampler_logps_N, owners, stage)
    given_N, advantage_N = advantage_N, _with_teacher(advantage_N, old_N, batch, stage)
    loss, metrics = grpo_loss(
        logps_N,
        old_N,
        advantage_N,
        surrogate=stage.loss,
        clip_low=stage.clip_low,
        clip_high=stage.clip_high,
        owners=owners,
        weight_N=weight_N,
        correction_N=correction_N,
        kl_N=None if reference_N is None else partial(kl_estimate, logps_N, reference_N, stage.kl),
        beta=stage.beta,
        entropy_N=entropy_N,
        entropy_bonus=stage.entropy_bonus,
    )
    metrics |= corrected
    if batch.kl_N is not None:
        metrics["kl"] = mean_metric(batch.kl_N)
    if batch.teacher_logps_N is not None and stage.teacher is not None:
        metrics["teacher_kl"] = mean_metric(logps_N - batch.teacher_logps_N)
        if stage.teacher.through in KL:
            divergence_N = kl_estimate(logps_N, batch.teacher_logps_N, stage.teacher.through, (logps_N - old_N).exp())
            loss = loss + stage.teacher.weight * (divergence_N if weight_N is None else divergence_N * weight_N).sum()
    mismatch_N = old_N - batch.sampler_logps_N
    if notes is not None:
        # What the sampler called an advantage is a reward where the learner compares those.
        by_token = isinstance(batch, PpoBatch) or advantage_N is not given_N or batch.kl_N is not None
        notes.add(batch, mismatch_N, advantage_N if by_token else None)
    # The sampler drew the tokens, so that k3 estimates how far it lies from the policy without bias, and is never negative.
    metrics["kl_to_sampler"] = mean_metric(kl_estimate(batch.sampler_logps_N, logps_N.detach(), "k3"))
    return loss, {**metrics, "entropy": mean_metric(entropy_N), "mismatch": mean_metric(mismatch_N.abs())}


def _correction(
    old_N: Tensor, sampler_N: Tensor, owners: Owners, stage: Rlvr
) -> tuple[Tensor | None, dict[str, tuple[Tensor, Tensor]]]:
    """The weight by which a token's term corrects for the sampler, and the share of tokens whose ratio is out of bounds."""
    floor, cap = stage.ratio_floor, stage.ratio_cap
    if floor is None and cap is None:
        return None, {}
    ratio_N = sampler_ratio(old_N, sampler_N, stage.ratio_level, owners)
    share = mean_metric(outside(ratio_N, floor, cap).float())
    return CORRECTIONS[stage.ratio_outside](ratio_N, floor, cap), {"ratio_outside": share}


def _with_teacher(advantage_N: Tensor, old_N: Tensor, batch: RolloutBatch, stage: Rlvr) -> Tensor:
    """The advantages less the reverse KL to the teacher, token by token, where the recipe distils that way.

    Its gradient is that of KL(policy || teacher) on what the policy sampled, each token for itself (discount 0).
    reference: "On-Policy Distillation of Language Models", arXiv 2306.13649, section 3, with the reverse KL; as an advantage:
    "On-Policy Distillation", Thinking Machines 2025.
    """
    if stage.teacher is None or stage.teacher.through != "advantage" or batch.teacher_logps_N is None:
        return advantage_N
    return advantage_N - stage.teacher.weight * kl_estimate(old_N, batch.teacher_logps_N, "k1")
