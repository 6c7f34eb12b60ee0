"""The reward-model stage: Bradley-Terry over the pairs of every prompt, from the SFT model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tulu.config.load import Job, section_of
from tulu.config.schema import Rm
from tulu.data.chat import template_hash
from tulu.data.datasets import order, pair_groups
from tulu.losses import Loss, bradley_terry_loss
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.policy import load_tokenizer
from tulu.reward_models.model import RewardModel
from tulu.train.run import Run
from tulu.train.step import Learner, fit, rows_of
from tulu.types import Group


def run(job: Job) -> Path:
    """Train, report the accuracy on held-out pairs, and return the folder of the model."""
    stage: Rm = section_of(job.recipe, "rm")
    parallel = Parallel(stage)
    run = Run(job, parallel)
    if run.finished:
        return run.path / "model"

    tokenizer = load_tokenizer(run.start, job.recipe.template)
    groups = pair_groups(stage.data, tokenizer, stage.max_length, run.cache, drop_long=True, seed=stage.seed)
    groups.report.show()
    held_out, rows = split(groups, stage)
    reward_model = RewardModel.load(
        run.start,
        template=job.recipe.template,
        lora=stage.lora,
        gradient_checkpointing=stage.gradient_checkpointing,
        trainable=True,
        new_head=stage.seed,
    )
    run.pin(data=groups.digest, start=reward_model.digest(), template=template_hash(tokenizer))
    learner = Learner(reward_model, stage, parallel)
    run.resume()

    fit(learner, rows, lambda batch: ranking_loss(reward_model, batch, stage), count_pairs, stage, run, prepare=with_margins)
    facts: dict[str, float] = {}
    if held_out:
        pairs = sum(math.comb(len(group.completions), 2) for group in held_out)
        facts = {"held_out_accuracy": accuracy(learner, held_out, stage), "held_out_pairs": pairs}
    folder = run.finish(reward_model.save, rows=len(rows), **facts)
    if held_out and parallel.is_main:
        print(f"held-out: {100 * facts['held_out_accuracy']:.1f} % of {facts['held_out_pairs']:,} pairs ranked right")
    return folder


def split(groups: Sequence[Group], stage: Rm) -> tuple[list[Group], list[Group]]:
    """(held-out, training) rows: a seeded share of the mix."""
    shuffled = order(len(groups), stage.seed, 0)
    kept = round(len(groups) * stage.held_out)
    held_out = set(shuffled[:kept])
    return [groups[i] for i in sorted(held_out)], [group for i, group in enumerate(groups) if i not in held_out]


def with_margins(groups: list[Group]) -> list[Group]:
    """Each group's margin where the batch can carry it."""
    return [
        replace(group, completions=tuple(replace(c, values={"margin": group.margin}) for c in group.completions))
        for group in groups
    ]


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


def ranking_loss(reward_model: RewardModel, batch: Batch, stage: Rm) -> Loss:
    """Bradley-Terry over every pair of every prompt, from one forward pass."""
    rewards_C = reward_model.score(batch)
    better, worse = ranked_pairs(batch)
    return bradley_terry_loss(rewards_C[better], rewards_C[worse], batch.values["margin"][better], stage.centre)


@torch.no_grad()
def accuracy(learner: Learner, groups: Sequence[Group], stage: Rm) -> float:
    """Share of pairs whose better completion is scored strictly higher, over all processes."""
    parallel, reward_model = learner.parallel, learner.model
    batches = rows_of(parallel.share(list(groups)), stage)
    spare = rows_of(groups[:1], stage)[0]
    right = total = 0.0
    reward_model.module.eval()
    for index in range(parallel.largest(len(batches))):
        own = index < len(batches)
        batch = batches[index] if own else spare
        rewards_C: Tensor = reward_model.runner(batch.to(parallel.device))
        better, worse = ranked_pairs(batch)
        right += own * float((rewards_C[better] > rewards_C[worse]).sum())
        total += own * len(better)
    reward_model.module.train()
    return parallel.total(right) / parallel.total(total)
