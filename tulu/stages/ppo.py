"""PPO: a value model beside the policy, and what its judgement of every token makes of a completion's reward.

Policy and value model are one module with one optimizer, so that a step, a checkpoint and sharding know nothing of
there being two. Order of operations and defaults: open-instruct, ppo_vllm_thread_ray_gtrl.py @ bac93931^.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tulu.advantages import gae
from tulu.config.schema import Rlvr, Value
from tulu.errors import RecipeError
from tulu.losses import kl_estimate
from tulu.model.batch import Batch, sum_by_owner
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy, PolicyModule
from tulu.reward_models.model import RewardModel, RewardModule

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
    """What PPO trains: asked once, it gives log-probs, entropies and values of a batch's trained tokens."""

    def __init__(self, policy: Policy, value: RewardModel) -> None:
        """Raises RecipeError if the two do not read the same tokens."""
        # It may have more: a pad token of its own.
        theirs = value.tokenizer.get_vocab()
        if any(theirs.get(token) != index for token, index in policy.tokenizer.get_vocab().items()):
            raise RecipeError("rlvr.value: the value model has another vocabulary than the policy; name one trained from it")
        self.policy = policy
        self.value = value
        self.module = ActorCriticModule(policy.module, value.module)
        self.runner: nn.Module = self.module

    @classmethod
    def load(cls, policy: Policy, stage: Rlvr, template: str, own: Path, start: str) -> "ActorCritic | None":
        """With the value model that the recipe names, else `own`, the one that its rm stage trained; None without PPO.

        Where there is neither it begins as the policy does, `start`, with a new head.
        """
        if stage.value is None:
            return None
        named = stage.value.path or (str(own) if own.is_dir() else stage.value.released)
        if named is None:
            log.warning("no reward model (rlvr.value.path, %s): the value model begins as %s with a new head", own, start)
        value = RewardModel.load(
            named or start,
            template=template,
            trainable=True,
            gradient_checkpointing=stage.gradient_checkpointing,
            lora=stage.lora,
            revision=stage.value.revision,
            new_head=None if named else stage.seed,
        )
        return cls(policy, value)

    def __call__(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) log-probs, (N,) entropies, (N,) values of the states before the trained tokens."""
        found: tuple[Tensor, Tensor, Tensor] = self.runner(batch.to(self.policy.device), temperature)
        return found


def token_advantages(parts: Sequence[Sequence[Batch]], stage: Rlvr, value: Value, parallel: Parallel) -> list[list[Batch]]:
    """The rows with every token's advantage, and the return that its value is trained towards.

    A row brings each completion's reward as `advantage`, and per token `old` and (with β) `reference` log-probs and the
    `value`. Token t earns -β · KL(old, reference)_t, the last one the reward on top; then GAE, and whitening over all
    tokens of the step with variance of N - 1, as the original does on each process.
    """
    judged = [[_judged(batch, stage, value) for batch in part] for part in parts]
    if not value.whiten:
        return judged
    tokens = [batch.token_values["advantage"].double() for part in judged for batch in part]
    count = parallel.total(sum(len(each) for each in tokens))
    mean = parallel.total(sum(float(each.sum()) for each in tokens)) / max(1.0, count)
    squares = parallel.total(sum(float((each - mean).square().sum()) for each in tokens))
    scale = (squares / max(1.0, count - 1) + 1e-8) ** -0.5
    return [[_with(batch, advantage=(batch.token_values["advantage"] - mean) * scale) for batch in part] for part in judged]


def _judged(batch: Batch, stage: Rlvr, value: Value) -> Batch:
    """A row with advantages, returns and the KL of its tokens; the reference has done its work."""
    known = dict(batch.token_values)
    values_N = known["value"]
    rewards_N = torch.zeros_like(values_N)
    reference_N = known.pop("reference", None)
    if reference_N is not None:
        known["kl"] = kl_estimate(known["old"], reference_N, stage.kl)
        rewards_N -= stage.beta * known["kl"]
    lengths_C = sum_by_owner(torch.ones_like(values_N), batch.owner_N, batch.n_completions).long()
    some_C = lengths_C > 0
    rewards_N[lengths_C.cumsum(0)[some_C] - 1] += batch.values["advantage"][some_C].to(rewards_N)
    lengths = lengths_C.tolist()
    found = [
        gae(rewards_T, values_T, value.gamma, value.lam)
        for rewards_T, values_T in zip(rewards_N.split(lengths), values_N.split(lengths), strict=True)
    ]
    advantage_N, return_N = (torch.cat(each).to(values_N) for each in zip(*found, strict=True))
    return _with(replace(batch, token_values=known), advantage=advantage_N, returns=return_N)


def _with(batch: Batch, **token_values: Tensor) -> Batch:
    return replace(batch, token_values={**batch.token_values, **token_values})
