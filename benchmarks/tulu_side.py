"""Our side: the stages' own loop, over rows packed into groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.material import MAX_LENGTH, SAMPLES, VOCABULARY, Material
from benchmarks.pace import Pace, Task, Trainer
from tulu.config.job import Job
from tulu.config.schema import Dpo, Recipe, Rlvr, Rm, Sft, Source, TrainStage
from tulu.data.datasets import load_groups
from tulu.data.mixing import order
from tulu.grading.reward import Grades
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models import training as rm
from tulu.reward_models.model import RewardModel
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.stages import dpo, rlvr, sft
from tulu.train.fit import fit, pack_whole
from tulu.train.optimizer import Learner
from tulu.train.reference import reference_logps
from tulu.train.run import Run
from tulu.train.step import count_tokens
from tulu.types import Completion, Group, Problem

TRAINING = {
    "max_length": MAX_LENGTH,
    "steps": 1_000_000,
    "learning_rate": 1e-5,
    "schedule": "constant",
    "clip_norm": 1.0,
    "precision": "fp32",
}


class PacedRun(Run):
    """A run that tells the pace of every step it logs."""

    def __init__(self, job: Job, parallel: Parallel, pace: Pace) -> None:
        super().__init__(job, parallel)
        self.pace = pace

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        super().log(step, metrics)
        self.pace.step(metrics["loss"] or 0.0)


def settings(task: Task, file: str, batch: int) -> dict[str, Any]:
    """The fields that every stage shares; `batch` counts what the stage counts, sequences, pairs or completions."""
    source = Source(name=str(Material(task.material).file(file)), fraction=1.0)
    return {**TRAINING, "data": (source,), "batch": batch, "micro_batch": task.micro_batch, "row_tokens": task.row_tokens}


def open_run(task: Task, stage: TrainStage, parallel: Parallel, groups: Sequence[Group], pace: Pace) -> PacedRun:
    """A run, once the first turn has come."""
    recipe = Recipe.model_validate({"name": "bench", task.stage: stage})
    job = Job(recipe, task.stage, task.scratch / task.stage, str(task.material))
    run = PacedRun(job, parallel, pace)
    pace.ready(useful(groups, task.batch, stage.seed))
    return run


def useful(groups: Sequence[Group], batch: int, seed: int) -> list[int]:
    """Tokens of every step's sequences, each with its prompt."""
    lengths = [sum(len(group.prompt) + len(completion.tokens) for completion in group.completions) for group in groups]
    drawn = [lengths[index] for index in order(len(groups), seed, 0)]
    return [sum(drawn[first : first + batch]) for first in range(0, len(drawn), batch)]


def train_sft(task: Task, pace: Pace) -> None:
    stage = Sft(**settings(task, "sft", task.batch))
    parallel = Parallel(stage)
    policy = Policy.load(Material(task.material).model)
    groups = load_groups("sft", stage.data, policy.tokenizer, stage.max_length)
    learner = Learner(policy, stage, parallel)
    run = open_run(task, stage, parallel, groups, pace)
    fit(learner, run, groups, pack_whole, lambda batch: sft.sft_loss(policy.logps(batch)), count_tokens)


def train_dpo(task: Task, pace: Pace) -> None:
    stage = Dpo(**settings(task, "pairs", task.batch), loss="dpo", beta=0.1)
    parallel = Parallel(stage)
    policy = Policy.load(Material(task.material).model)
    groups = load_groups("pairs", stage.data, policy.tokenizer, stage.max_length)
    learner = Learner(policy, stage, parallel)
    reference = reference_logps(groups, policy, stage, parallel, task.scratch / "reference")
    pairs = dpo.referenced_pairs(groups, reference)
    run = open_run(task, stage, parallel, groups, pace)
    fit(learner, run, pairs, dpo.pack_pairs, lambda batch: dpo.dpo(policy, batch, stage), dpo.count_pairs)


def train_rm(task: Task, pace: Pace) -> None:
    stage = Rm(**settings(task, "pairs", task.batch))
    parallel = Parallel(stage)
    model = RewardModel.load(Material(task.material).reward, trainable=True)
    groups = load_groups("pairs", stage.data, model.tokenizer, stage.max_length)
    learner = Learner(model, stage, parallel)
    run = open_run(task, stage, parallel, groups, pace)
    fit(learner, run, groups, rm.pack_ranked, lambda batch: rm.ranking_loss(model, batch, stage), rm.count_pairs)


def train_grpo(task: Task, pace: Pace) -> None:
    """The learner alone: rollouts come from the file."""
    stage = Rlvr(
        **settings(task, "rollouts", task.batch * SAMPLES),
        prompts=task.batch,
        samples=SAMPLES,
        max_prompt=MAX_LENGTH,
        max_tokens=MAX_LENGTH,
        ratio_cap=None,
    )
    parallel = Parallel(stage)
    policy = Policy.load(Material(task.material).model)
    rollouts = [to_rollout(row) for row in Material(task.material).rows("rollouts")]
    learner = Learner(policy, stage, parallel)
    drawn = [rollouts[index] for index in order(len(rollouts), stage.seed, 0)]
    steps = [drawn[first : first + task.batch] for first in range(0, len(drawn), task.batch)]
    pace.ready(useful([rollout.group for rollout in rollouts], task.batch, stage.seed))
    models = rlvr.Models(policy, critic=None, kl_reference=None)
    for index, kept in enumerate(steps):
        rates = [stage.learning_rate]
        metrics = rlvr.update(learner, models, StepRollouts(trained=kept, sampled=kept), stage, index, rates)
        pace.step(metrics["loss"])


def to_rollout(row: Mapping[str, Any]) -> Rollout:
    # A random model is close to uniform. These log-probs enter a metric alone, as nothing is corrected by them here.
    uniform = -float(torch.log(torch.tensor(VOCABULARY)))
    completions = [Completion(tokens, [True] * len(tokens), [uniform] * len(tokens)) for tokens in row["completions"]]
    problem = Problem("", (), row["prompt"], None, ())
    advantages, grades = tuple(row["advantages"]), (Grades(None),) * len(completions)
    return Rollout(problem, Group(row["prompt"], tuple(completions)), ("",) * len(completions), grades, advantages, advantages)


STAGES: dict[str, Trainer] = {"sft": train_sft, "dpo": train_dpo, "rm": train_rm, "grpo": train_grpo}
"""Each trains one stage, a turn at a time."""
