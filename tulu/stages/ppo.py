"""PPO: a value model beside the policy, which spreads a completion's reward over the tokens that earned it.

Policy and value model are one module with one optimizer, so that a step, a checkpoint and sharding know nothing of
there being two. Order of operations and defaults: open-instruct, ppo_vllm_thread_ray_gtrl.py @ bac93931^.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tulu.advantages import gae
from tulu.config.schema import Rlvr, ValueModelSettings
from tulu.errors import RecipeError
from tulu.losses import Loss, kl_estimate, mean_metric, value_loss
from tulu.model.batch import Batch, sum_by_owner
from tulu.model.load import Origin
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy, PolicyModule
from tulu.reward_models.model import RewardModel, RewardModule
from tulu.rollout.batches import RolloutBatch

log = logging.getLogger("tulu")


class ActorCriticModule(nn.Module):
    """Policy and value model as the one module that is sharded, wrapped and checkpointed."""

    def __init__(self, policy: PolicyModule, value: RewardModule) -> None:
        super().__init__()
        self.policy = policy
        self.value = value

    def forward(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        logps_N, entropy_N = self.policy(batch, temperature, entropy=True)
        return logps_N, entropy_N, self.value(batch, read="trained")


class ActorCritic:
    """Policy and value model together: log-probs, entropies and values of a batch's trained tokens in one call."""

    def __init__(self, policy: Policy, value: RewardModel) -> None:
        """Raises RecipeError if the two do not read the same tokens."""
        # The value model may have one token more, a pad token of its own.
        vocabulary = value.tokenizer.get_vocab()
        if any(vocabulary.get(token) != index for token, index in policy.tokenizer.get_vocab().items()):
            raise RecipeError("rlvr.value: the value model has another vocabulary than the policy; name one trained from it")
        self.policy = policy
        self.value = value
        self.module = ActorCriticModule(policy.module, value.module)
        self.runner: nn.Module = self.module

    @classmethod
    def load(
        cls, policy: Policy, stage: Rlvr, template: str, trained: Path, start: str, options: Origin | None = None
    ) -> "ActorCritic | None":
        """With the value model that the recipe names, else `trained`, the one of its rm stage; None without PPO.

        Where there is neither, the value model begins with the weights of `start`, loaded with its `options`, and a new head.
        """
        if stage.value is None:
            return None
        path = stage.value.path or (str(trained) if trained.is_dir() else stage.value.released)
        if path is None:
            log.warning("no reward model (rlvr.value.path, %s): the value model begins as %s with a new head", trained, start)
        options = options or Origin()
        if path:
            options = {**options, "revision": stage.value.revision}
        value = RewardModel.load(
            path or start,
            template=template,
            trainable=True,
            gradient_checkpointing=stage.gradient_checkpointing,
            lora=stage.lora,
            new_head=None if path else stage.seed,
            **options,
        )
        return cls(policy, value)

    def __call__(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) log-probs, (N,) entropies, (N,) values of the states before the trained tokens."""
        numbers: tuple[Tensor, Tensor, Tensor] = self.runner(batch.to(self.policy.device), temperature)
        return numbers


@dataclass(frozen=True, kw_only=True)
class PpoBatch(RolloutBatch):
    """A row of sampled completions with the advantage of every token, and the return that its value is trained towards."""

    advantage_N: Tensor
    return_N: Tensor
    kl_N: Tensor | None
    """KL to the starting model, which the rewards already hold; None where the recipe has none."""


def token_advantages(
    minibatches: Sequence[Sequence[RolloutBatch]], stage: Rlvr, value: ValueModelSettings, parallel: Parallel
) -> Sequence[Sequence[PpoBatch]]:
    """The rows with every token's advantage and return.

    Token t earns -β · KL(old, reference)_t, the last one the completion's reward on top; then come generalised advantages,
    and whitening over all tokens of the step with variance of N - 1, as the original does on each process.
    """
    rows = [[_with_advantages(batch, stage, value) for batch in minibatch] for minibatch in minibatches]
    if not value.whiten:
        return rows
    advantages = [batch.advantage_N.double() for minibatch in rows for batch in minibatch]
    count = parallel.total(sum(len(row_N) for row_N in advantages))
    mean = parallel.total(sum(float(row_N.sum()) for row_N in advantages)) / max(1.0, count)
    squares = parallel.total(sum(float((row_N - mean).square().sum()) for row_N in advantages))
    scale = (squares / max(1.0, count - 1) + 1e-8) ** -0.5
    return [[replace(batch, advantage_N=(batch.advantage_N - mean) * scale) for batch in minibatch] for minibatch in rows]


def _with_advantages(batch: RolloutBatch, stage: Rlvr, value: ValueModelSettings) -> PpoBatch:
    """A row with advantages, returns and the KL of its tokens. The KL is in the rewards now, and no longer in the loss."""
    values_N, old_N = batch.old_values_N, batch.old_logps_N
    if values_N is None or old_N is None:
        raise ValueError("advantages need the log-probs and values from before the update")
    rewards_N = torch.zeros_like(values_N)
    kl_N = None
    if batch.kl_reference_N is not None:
        kl_N = kl_estimate(old_N, batch.kl_reference_N, stage.kl)
        rewards_N -= stage.beta * kl_N
    lengths_C = sum_by_owner(torch.ones_like(values_N), batch.owner_N, batch.n_completions).long()
    trained_C = lengths_C > 0
    rewards_N[lengths_C.cumsum(0)[trained_C] - 1] += batch.advantage_C[trained_C].to(rewards_N)
    lengths = lengths_C.tolist()
    pairs = [
        gae(rewards_T, values_T, value.gamma, value.lam)
        for rewards_T, values_T in zip(rewards_N.split(lengths), values_N.split(lengths), strict=True)
    ]
    advantage_N, return_N = (torch.cat(parts).to(values_N) for parts in zip(*pairs, strict=True))
    fields = {**vars(batch), "kl_reference_N": None}
    return PpoBatch(**fields, advantage_N=advantage_N, return_N=return_N, kl_N=kl_N)


def spare_ppo_batch(spare: RolloutBatch) -> PpoBatch:
    """A spare row, which is trained at weight 0, so that its numbers mean nothing."""
    zeros_N = torch.zeros_like(spare.sampler_logps_N)
    fields = {**vars(spare), "old_values_N": zeros_N}
    return PpoBatch(**fields, advantage_N=zeros_N, return_N=zeros_N, kl_N=None)


def ppo_loss(
    policy: Loss, values_N: Tensor, batch: PpoBatch, value: ValueModelSettings, weight_N: Tensor | None, value_alone: bool = False
) -> Loss:
    """The policy's loss, unless the value model learns alone, plus the value model's times the recipe's coefficient."""
    if batch.old_values_N is None:
        raise ValueError("the value loss needs the values from before the update")
    loss, metrics = value_loss(values_N, batch.old_values_N, batch.return_N, value.clip, weight_N)
    metrics = {**policy[1], **metrics}
    if batch.kl_N is not None:
        metrics["kl"] = mean_metric(batch.kl_N)
    return (0.0 if value_alone else 1.0) * policy[0] + value.coefficient * loss, metrics
