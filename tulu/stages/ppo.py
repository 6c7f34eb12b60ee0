"""PPO: a value model beside the policy, which spreads a completion's reward over the tokens that earned it.

Policy and value model are one module with one optimizer, so that a step, a checkpoint and sharding know nothing of
there being two. Order of operations and defaults: open-instruct, ppo_vllm_thread_ray_gtrl.py @ bac93931^. The original differs
in five places, for each of which a field says how the released models were trained: `value.reward_at`, `value.clip_norm`,
`value.whiten_over`, `denominator` and `rate_by`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tulu.advantages import gae
from tulu.config.schema import Rlvr, ValueModelSettings
from tulu.losses import Loss, kl_estimate, value_loss
from tulu.model.batch import Batch
from tulu.model.load import Origin
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy, PolicyModule
from tulu.model.sending import distinct, note_distinct, send
from tulu.reward_models.model import RewardModel, RewardModule
from tulu.rollout.batches import RolloutBatch
from tulu.stages.denominator import has_end
from tulu.stages.frozen import check_same_tokens

log = logging.getLogger("tulu")


class ActorCriticModule(nn.Module):
    """Policy and value model as the one module that is sharded, wrapped and checkpointed."""

    def __init__(self, policy: PolicyModule, value: RewardModule) -> None:
        super().__init__()
        self.policy = policy
        self.value = value

    def forward(
        self, batch: Batch, temperature: float, ends: bool, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        logps_N, entropy_N = self.policy(batch, temperature, entropy=True, entropy_gradient=entropy_gradient)
        return logps_N, entropy_N, self.value(with_ends(batch) if ends else batch, read="trained")


def with_ends(batch: Batch) -> Batch:
    """The batch with one more state to read for each completion, after all others: the one in which it has ended."""
    plain: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    places_C = torch.arange(batch.n_completions, device=batch.owner_N.device)
    last_C = batch.last_C
    plain["read_N"] = torch.cat([batch.read_N, last_C])
    if all(segment.length for segment in batch.completions):
        # The last token of a completion predicts none of it, so that its state is not among those that are read already.
        note_distinct(plain["read_N"], torch.cat([distinct(batch.read_N), last_C]).sort().values)
    plain["owner_N"] = torch.cat([batch.owner_N, places_C])
    # Nothing is predicted in these states.
    for name in ("target_N", "place_N"):
        plain[name] = torch.cat([plain[name], torch.zeros_like(places_C)])
    return Batch(**plain)


class ActorCritic:
    """Policy and value model together: log-probs, entropies and values of a batch's trained tokens in one call."""

    def __init__(self, policy: Policy, value: RewardModel, ends: bool = False) -> None:
        """With `ends`, the states in which completions have ended have values too. RecipeError where they read other tokens."""
        check_same_tokens(policy.tokenizer, value.tokenizer, "rlvr.value", "the value model", "name one trained from it")
        self.policy = policy
        self.value = value
        self.ends = ends
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
        return cls(policy, value, ends=stage.value.reward_at == "after")

    def __call__(self, batch: Batch, temperature: float, entropy_gradient: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """(N,) log-probs, (N,) entropies, (N,) values of the states before the trained tokens, then (C,) of those at the end."""
        numbers: tuple[Tensor, Tensor, Tensor] = self.runner(
            batch.to(self.policy.device), temperature, self.ends, entropy_gradient
        )
        return numbers


@dataclass(frozen=True, kw_only=True)
class PpoBatch(RolloutBatch):
    """A row of sampled completions with the advantage of every token, and the return that its value is trained towards."""

    advantage_N: Tensor
    return_N: Tensor
    end_return_C: Tensor | None = None
    """The return in the state in which the completion has ended, 0 where there is none; None where no reward lies there."""


def token_advantages(
    minibatches: Sequence[Sequence[RolloutBatch]], stage: Rlvr, value: ValueModelSettings, parallel: Parallel
) -> Sequence[Sequence[PpoBatch]]:
    """The rows with every token's advantage and return.

    Token t earns -β · KL(old, reference)_t, the last one the completion's reward on top; then come generalised advantages,
    and whitening with variance of N - 1. Under `reward_at: after` the reward is earned one position after the last token, whose
    advantage is then λ · reward + (1 - λ) · V_end - V (γ 1), where V_end is the value of the state in which it has ended.
    """
    rows = [[_with_advantages(batch, stage, value) for batch in minibatch] for minibatch in minibatches]
    return whitened(rows, value.whiten_over or stage.batch, parallel) if value.whiten else rows


def _with_advantages(batch: RolloutBatch, stage: Rlvr, value: ValueModelSettings) -> PpoBatch:
    """A row with advantages, returns and the KL of its tokens. KL that is in the rewards now is no longer in the loss."""
    values_N, old_N = batch.old_values_N, batch.old_logps_N
    if values_N is None or old_N is None or (value.reward_at == "after" and batch.old_end_C is None):
        raise ValueError("advantages need the log-probs and values from before the update")
    rewards_N = torch.zeros_like(values_N)
    kl_N = None
    if batch.kl_reference_N is not None and stage.kl_in_reward:
        kl_N = kl_estimate(old_N, batch.kl_reference_N, stage.kl)
        rewards_N -= stage.beta * kl_N
    lengths = batch.lengths_C.long().tolist()
    scores = batch.advantage_C.tolist()
    ends: Sequence[float | None] = [None] * batch.n_completions
    if value.reward_at == "after" and batch.old_end_C is not None:
        ended = zip(batch.old_end_C.tolist(), has_end(batch, stage), strict=True)
        ends = [end if has else None for end, has in ended]
    # The sums run over plain numbers, on the CPU.
    rewards, values = rewards_N.cpu().split(lengths), values_N.cpu().split(lengths)
    parts = [
        _completion_advantages(rewards_T, values_T, score, end, value)
        for rewards_T, values_T, score, end in zip(rewards, values, scores, ends, strict=True)
    ]
    advantages, returns, end_returns = zip(*parts, strict=True)
    advantage_N, return_N = (torch.cat(numbers).to(values_N) for numbers in (advantages, returns))
    end_return_C = None if batch.old_end_C is None else values_N.new_tensor(end_returns)
    fields = {**vars(batch), "kl_N": kl_N, "kl_reference_N": None if stage.kl_in_reward else batch.kl_reference_N}
    return PpoBatch(**fields, advantage_N=advantage_N, return_N=return_N, end_return_C=end_return_C)


def _completion_advantages(
    rewards_T: Tensor, values_T: Tensor, score: float, end: float | None, value: ValueModelSettings
) -> tuple[Tensor, Tensor, float]:
    """Advantages and returns of one completion's tokens, and the return in the state whose value is `end`, 0 without one."""
    if end is None:
        if not len(rewards_T):
            return rewards_T, rewards_T, 0.0
        last_T = torch.zeros_like(rewards_T)
        last_T[-1] = score
        return *gae(rewards_T + last_T, values_T, value.gamma, value.lam), 0.0
    rewards_T = torch.cat([rewards_T, rewards_T.new_tensor([score])])
    values_T = torch.cat([values_T, values_T.new_tensor([end])])
    advantages_T, returns_T = gae(rewards_T, values_T, value.gamma, value.lam)
    return advantages_T[:-1], returns_T[:-1], float(returns_T[-1])


def whitened(minibatches: Sequence[Sequence[PpoBatch]], over: int, parallel: Parallel) -> Sequence[Sequence[PpoBatch]]:
    """The rows with their advantages at mean 0 and variance 1 over the tokens of every `over` completions.

    Completions are counted in the order in which their problems were drawn over all processes, so that the number of
    processes changes nothing.
    """
    places = [[row.places_C for row in minibatch] for minibatch in minibatches]
    drawn = sorted(place for own in parallel.exchange(places) for minibatch in own for row in minibatch for place in row)
    block_of = {place: number // over for number, place in enumerate(drawn)}
    rows = [
        (row, row.owner_N.new_tensor([block_of[place] for place in row_places])[row.owner_N])
        for minibatch, minibatch_places in zip(minibatches, places, strict=True)
        for row, row_places in zip(minibatch, minibatch_places, strict=True)
    ]
    n_blocks = max(block_of.values(), default=0) + 1
    count_B = _block_sums([(torch.ones_like(row.advantage_N), block_N) for row, block_N in rows], n_blocks, parallel)
    mean_B = _block_sums([(row.advantage_N, block_N) for row, block_N in rows], n_blocks, parallel) / count_B.clamp(min=1)
    squares = [((row.advantage_N - mean_B.to(row.advantage_N)[block_N]).square(), block_N) for row, block_N in rows]
    scale_B = (_block_sums(squares, n_blocks, parallel) / (count_B - 1).clamp(min=1) + 1e-8) ** -0.5
    white = iter(
        replace(row, advantage_N=(row.advantage_N - mean_B.to(row.advantage_N)[block_N]) * scale_B.to(row.advantage_N)[block_N])
        for row, block_N in rows
    )
    return [[next(white) for _ in minibatch] for minibatch in minibatches]


def _block_sums(rows: Sequence[tuple[Tensor, Tensor]], n_blocks: int, parallel: Parallel) -> Tensor:
    """(B,) float64 sums of per-token numbers over each block, over all processes."""
    sums_B = torch.zeros(n_blocks, dtype=torch.float64)
    for values_N, block_N in rows:
        sums_B += torch.zeros_like(sums_B).index_add(0, block_N.cpu(), values_N.cpu().double())
    return torch.stack([torch.tensor(part, dtype=torch.float64) for part in parallel.exchange(sums_B.tolist())]).sum(0)


def spare_ppo_batch(spare: RolloutBatch) -> PpoBatch:
    """A spare row, which is trained at weight 0, so that its numbers mean nothing."""
    zeros_N, zeros_C = torch.zeros_like(spare.sampler_logps_N), torch.zeros_like(spare.advantage_C)
    fields = {**vars(spare), "old_values_N": zeros_N, "old_end_C": zeros_C}
    return PpoBatch(**fields, advantage_N=zeros_N, return_N=zeros_N, end_return_C=zeros_C)


def ppo_loss(
    policy: Loss,
    values_M: Tensor,
    batch: PpoBatch,
    stage: Rlvr,
    value: ValueModelSettings,
    weight_C: Tensor | None,
    value_alone: bool = False,
) -> Loss:
    """The policy's loss, unless the value model learns alone, plus the value model's times the recipe's coefficient.

    `values_M` are those of the states before the tokens and, where the critic reads them, of the states at the end.
    """
    if batch.old_values_N is None:
        raise ValueError("the value loss needs the values from before the update")
    values_N, old_N, returns_N, owner_N = values_M[: batch.n_trained], batch.old_values_N, batch.return_N, batch.owner_N
    if len(values_M) > batch.n_trained and batch.old_end_C is not None and batch.end_return_C is not None:
        ended = [place for place, has in enumerate(has_end(batch, stage)) if has]
        ended_E = send(torch.tensor(ended, dtype=torch.long), owner_N.device)
        values_N = torch.cat([values_N, values_M[batch.n_trained :][ended_E]])
        old_N = torch.cat([old_N, batch.old_end_C[ended_E]])
        returns_N = torch.cat([returns_N, batch.end_return_C[ended_E]])
        owner_N = torch.cat([owner_N, ended_E])
    weight_N = None if weight_C is None else weight_C[owner_N]
    loss, metrics = value_loss(values_N, old_N, returns_N, value.clip, weight_N)
    return (0.0 if value_alone else 1.0) * policy[0] + value.coefficient * loss, {**policy[1], **metrics}
