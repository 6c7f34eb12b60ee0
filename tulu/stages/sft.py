"""Supervised fine-tuning: raise the log-probs of the assistant's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tulu.config.job import Job
from tulu.config.schema import Sft
from tulu.evaluation.while_training import answer_looks
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch
from tulu.model.policy import Policy
from tulu.train.fit import fit, pack_whole
from tulu.train.held_out import part
from tulu.train.open import open_stage
from tulu.train.step import count_tokens
from tulu.types import Group


@dataclass(frozen=True, kw_only=True)
class WeightedBatch(Batch):
    """A row of conversations whose tokens are weighted by the original's micro-batches."""

    weight_C: Tensor
    """Weight of every trained token of the conversation."""
    share_C: Tensor
    """Share of one micro-batch of the original; a micro-batch's shares add up to 1."""


@dataclass(frozen=True, slots=True)
class WeightedGroup(Group):
    """A conversation with its weight and share; see WeightedBatch."""

    weight: float = 1.0
    share: float = 1.0


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    run = open_stage(job)
    stage: Sft = run.section
    if run.finished:
        return run.model_folder

    groups = run.load_groups(run.tokenizer)
    parted = part(run, groups, run.tokenizer)
    policy: Policy = run.load(Policy)
    looks, facts = answer_looks(run, policy, run.tokenizer, parted.held_out)
    learner = run.begin(policy, groups, start=policy.digest(), **parted.facts, **facts)
    run.settle_rows(learner, lambda batch: policy.logps(batch).sum())
    run.resume()

    def token_mean(batch: Batch) -> Loss:
        return sft_loss(policy.logps(batch))

    def weighted(batch: WeightedBatch) -> Loss:
        return sft_loss(policy.logps(batch), batch.weight_C[batch.owner_N])

    seen: dict[str, Any] = {"held_out": parted.held_out, "looks": looks}
    if stage.loss == "token":
        fit(learner, run, parted.training, pack_whole, token_mean, count_tokens, **seen)
    else:
        fit(learner, run, parted.training, pack_weighted, weighted, count_micro_batches, prepare=weight_groups, **seen)
    return run.finish(policy.save, rows=len(parted.training))


def weight_groups(groups: Sequence[Group], stage: Sft) -> list[WeightedGroup]:
    """One step's conversations with the weights that reproduce `sum` and `micro_mean` of the original.

    reference: open-instruct finetune.py with --reduce_loss sum and mean @ bb98dbcac^: (1/RA) Σ S and (1/RA) Σ S/M over
    the R·A micro-batches of a step, where S is a micro-batch's summed loss and M its trained tokens.
    """
    weighted = []
    for first in range(0, len(groups), stage.loss_micro_batch):
        micro_batch = groups[first : first + stage.loss_micro_batch]
        trained = sum(completion.n_trained for group in micro_batch for completion in group.completions)
        weight = 1.0 if stage.loss == "sum" else 1.0 / trained
        share = 1.0 / len(micro_batch)
        weighted += [
            WeightedGroup(group.prompt, group.completions, group.id, weight=weight, share=share) for group in micro_batch
        ]
    return weighted


def pack_weighted(groups: Sequence[WeightedGroup], stage: Sft) -> list[WeightedBatch]:
    """Packed rows of weighted conversations."""
    weights, shares = [group.weight for group in groups], [group.share for group in groups]
    return [
        WeightedBatch(**vars(batch), weight_C=batch.of_groups(weights), share_C=batch.of_groups(shares))
        for batch in pack_whole(groups, stage)
    ]


def count_micro_batches(batch: WeightedBatch) -> Tensor:
    """Normalise by the micro-batches of the original."""
    return batch.share_C.sum()
