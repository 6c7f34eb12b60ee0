"""What the losses of reinforcement learning are divided by: weights of tokens, and the shares of a batch in the divisor."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tulu.config.schema import Rlvr
from tulu.data.mixing import order
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.sending import send
from tulu.rollout.batches import RolloutBatch
from tulu.train.step import Normaliser, count_completions, count_tokens

Place = tuple[int, int]
"""Where a completion stands among those of all processes, so that places sort in the order in which problems were drawn."""


def token_weights(batch: RolloutBatch, stage: Rlvr) -> Tensor | None:
    """(C,) what each of a completion's tokens counts in the policy's loss; None where all tokens count alike."""
    if stage.denominator == "micro_mean":
        return batch.weight_C
    return 1 / batch.lengths_C if stage.denominator == "sequence" else None


def value_weights(batch: RolloutBatch, stage: Rlvr) -> Tensor | None:
    """(C,) the same for the value model's loss, which may have one state more for each completion."""
    return batch.value_weight_C if stage.denominator == "micro_mean" else token_weights(batch, stage)


def normaliser(stage: Rlvr) -> Normaliser[RolloutBatch]:
    """What the summed loss is divided by: trained tokens, completions, completions × max_tokens, or micro-batches."""
    if stage.denominator == "micro_mean":
        return count_micro_batches
    if stage.denominator == "constant":
        return lambda batch: float(batch.n_completions * stage.max_tokens)
    return count_tokens if stage.denominator == "token" else count_completions


def count_micro_batches(batch: RolloutBatch) -> Tensor:
    """Normalise by the micro-batches of the original."""
    if batch.share_C is None:
        raise ValueError("a mean over micro-batches needs each completion's share in one")
    return batch.share_C.sum()


def weigh(rows: Sequence[RolloutBatch], stage: Rlvr, parallel: Parallel, update: int) -> Sequence[RolloutBatch]:
    """The rows of one optimizer step, under `micro_mean` with the weights that give each micro-batch's mean the same weight.

    The completions of all processes are shuffled anew for every update of the run and cut into micro-batches, so neither packing
    nor the number of processes changes the gradient. reference: open-instruct, ppo_vllm_thread_ray_gtrl.py @ bac93931^ and
    grpo_vllm_thread_ray_gtrl.py @ 745bf58d, where each process shuffles its own completions.
    """
    if stage.denominator != "micro_mean":
        return rows
    sizes = {place: size for part in parallel.exchange(_sizes(rows, stage)) for place, size in part.items()}
    drawn = sorted(sizes)
    shuffled = [drawn[place] for place in order(len(drawn), stage.seed, update)]
    weights: dict[Place, tuple[float, float, float]] = {}
    for first in range(0, len(shuffled), stage.loss_micro_batch):
        micro_batch = shuffled[first : first + stage.loss_micro_batch]
        tokens, states = (sum(sizes[place][which] for place in micro_batch) for which in (0, 1))
        # A micro-batch may have nothing that is trained, and counts as one whose mean is 0.
        weights |= dict.fromkeys(micro_batch, (1 / max(1, tokens), 1 / max(1, states), 1 / len(micro_batch)))
    return [_weighted(row, [weights[place] for place in row.places_C]) for row in rows]


def _sizes(rows: Sequence[RolloutBatch], stage: Rlvr) -> dict[Place, tuple[int, int]]:
    """Trained tokens, and states whose value is trained, of this process's completions."""
    ends = stage.value is not None and stage.value.reward_at == "after"
    sizes: dict[Place, tuple[int, int]] = {}
    for row in rows:
        ended = has_end(row, stage) if ends else [False] * row.n_completions
        for place, tokens, end in zip(row.places_C, row.lengths_C.tolist(), ended, strict=True):
            sizes[place] = int(tokens), int(tokens) + end
    return sizes


def has_end(batch: Batch, stage: Rlvr) -> list[bool]:
    """For each completion whether there is a state after it: a completion of max_tokens has none in the original."""
    return [segment.length < stage.max_tokens for segment in batch.completions]


def _weighted(row: RolloutBatch, weights: Sequence[tuple[float, float, float]]) -> RolloutBatch:
    weight_C, value_weight_C, share_C = send(torch.tensor(weights), row.tokens_T.device).T
    return replace(row, weight_C=weight_C, value_weight_C=value_weight_C, share_C=share_C)
