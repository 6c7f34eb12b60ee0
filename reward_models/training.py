"""The reward-model stage: Bradley-Terry over the pairs of every prompt, from the SFT model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tulu.config.job import Job
from tulu.config.schema import Rm
from tulu.losses import Loss, bradley_terry_loss
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating
from tulu.model.sending import send
from tulu.reward_models.model import RewardModel
from tulu.train.fit import fit, pack_whole
from tulu.train.held_out import part
from tulu.train.looks import SHOWN, SampleAnswer, Seen, spread
from tulu.train.open import open_stage
from tulu.train.optimizer import Learner
from tulu.types import Group

RANKS = ("better", "worse")
"""What the answers of a held-out row are called: the first is the chosen one."""
CHUNK = 512
"""Held-out groups that are packed at a time."""


@dataclass(frozen=True, kw_only=True)
class RankedBatch(Batch):
    """A row of prompts whose completions stand best first."""

    margin_C: Tensor
    """How much better a prompt's first completion is than its second, where the data says so; 0 elsewhere."""


def run(job: Job) -> Path:
    """Train, report the accuracy on held-out pairs, and return the folder of the model."""
    run = open_stage(job)
    stage: Rm = run.section
    if run.finished:
        return run.model_folder

    groups = run.load_groups(run.tokenizer)
    parted = part(run, groups, run.tokenizer)
    training, held_out = parted.training, parted.held_out
    reward_model: RewardModel = run.load(RewardModel, new_head=stage.seed)
    learner = run.begin(reward_model, groups, start=reward_model.digest(), **parted.facts)
    run.settle_rows(learner, lambda batch: reward_model.score(batch).sum())
    stage = run.section
    run.resume()

    looks = [partial(scored_pairs, learner, run.tokenizer, spread(held_out, SHOWN), stage)] if held_out else []

    def objective(batch: RankedBatch) -> Loss:
        return ranking_loss(reward_model, batch, stage)

    fit(learner, run, training, pack_ranked, objective, count_pairs, held_out=held_out, looks=looks)
    facts: dict[str, float] = {}
    if held_out:
        pairs = sum(math.comb(len(group.completions), 2) for group in held_out)
        facts = {"held_out_accuracy": accuracy(learner, held_out, range(len(held_out)), stage), "held_out_pairs": pairs}
    folder = run.finish(reward_model.save, rows=len(training), **facts)
    if held_out and run.parallel.is_main:
        print(f"held-out: {100 * facts['held_out_accuracy']:.1f} % of {facts['held_out_pairs']:,} pairs ranked right")
    return folder


def pack_ranked(groups: Sequence[Group], stage: Rm) -> list[RankedBatch]:
    """Packed rows of prompts with their margins."""
    margins = [group.margin for group in groups]
    return [RankedBatch(**vars(batch), margin_C=batch.of_groups(margins)) for batch in pack_whole(groups, stage)]


def ranked_pairs(batch: Batch) -> tuple[list[int], list[int]]:
    """Indices of the better and the worse completion of every pair: a prompt's completions stand best first."""
    better, worse = [], []
    for i, first in enumerate(batch.completions):
        for j in range(i + 1, batch.n_completions):
            if batch.completions[j].prefix_start != first.prefix_start:
                break
            better.append(i)
            worse.append(j)
    return better, worse


def count_pairs(batch: Batch) -> float:
    """Normalise by pairs: a ranked list of K completions has K (K - 1) / 2."""
    return float(len(ranked_pairs(batch)[0]))


def ranking_loss(reward_model: RewardModel, batch: RankedBatch, stage: Rm) -> Loss:
    """Bradley-Terry over every pair of every prompt, from one forward pass."""
    rewards_C = reward_model.score(batch)
    better, worse = (send(torch.tensor(places, dtype=torch.long), rewards_C.device) for places in ranked_pairs(batch))
    return bradley_terry_loss(rewards_C[better], rewards_C[worse], batch.margin_C[better], stage.centre)


def scored_pairs(learner: Learner, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group], stage: Rm, step: int) -> Seen:
    """The answers of a few held-out rows with the scores that the reward model gives them after a step."""
    device = learner.parallel.device
    answers = []
    with evaluating(learner.model.module):
        # Every process scores the same ones, since weights may be sharded.
        for batch in pack_whole(groups, stage):
            scores = learner.model.runner(batch.to(device)).tolist()
            for (place, number), score in zip(batch.index_C, scores, strict=True):
                group = groups[place]
                prompt, answer = (str(tokenizer.decode(list(part))) for part in (group.prompt, group.completions[number].tokens))
                answers.append((place, number, SampleAnswer(RANKS[min(number, 1)], group.id, prompt, answer, score)))
    return Seen({}, [answer for _, _, answer in sorted(answers, key=lambda entry: entry[:2])])


def accuracy(learner: Learner, groups: Sequence[Group], places: Sequence[int], stage: Rm) -> float:
    """Share of the pairs at these places whose better completion is scored strictly higher, over all processes."""
    parallel = learner.parallel
    right, total = torch.zeros((), dtype=torch.float64, device=parallel.device), 0.0
    with evaluating(learner.model.module):
        for first in range(0, len(places), CHUNK):
            chunk = [groups[place] for place in places[first : first + CHUNK]]
            batches = pack_whole(parallel.share(chunk), stage)
            for batch, is_own in parallel.level(batches, pack_whole(chunk[:1], stage)[0]):
                rewards_C = learner.model.runner(batch.to(parallel.device))
                if is_own:
                    pairs = ranked_pairs(batch)
                    better, worse = (send(torch.tensor(places, dtype=torch.long), parallel.device) for places in pairs)
                    right += (rewards_C[better] > rewards_C[worse]).sum()
                    total += len(better)
    return parallel.total(float(right)) / parallel.total(total)
