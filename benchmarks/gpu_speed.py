"""`--speed`: the project's own training loops on random rows, with all of an optimizer step, or forward and backward alone.

SFT, DPO and reward models run `tulu.train.fit.fit`, as the stages do; GRPO runs the stage's own update on rollouts that are
there already. A model whose optimizer does not fit the card (float32 masters, gradients and moments take 16 bytes a
parameter) runs forward and backward alone, with weights in bf16 and gradients dropped as they arrive; the table says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from benchmarks.gpu_cases import Figures, Unsuitable
from benchmarks.gpu_device import figures, memory_of, now, reset_memory
from benchmarks.gpu_rows import Rows, ragged, useful_tokens
from benchmarks.gpu_shapes import Shape, flops_of, new_model, tokenizer
from tulu.config.job import Job
from tulu.config.schema import Dpo, Recipe, Rlvr, Rm, Sft, Source, TrainStage
from tulu.grading.reward import Grades
from tulu.losses import Loss
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating, start_training
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models import training as rm
from tulu.reward_models.model import RewardModel
from tulu.rollout.batches import RolloutBatch, pack_rollouts
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.stages import dpo, rlvr, sft
from tulu.train.fit import fit, pack_whole
from tulu.train.optimizer import Learner
from tulu.train.run import Run
from tulu.train.step import count_tokens
from tulu.types import Group, Problem

SPARE = 6 << 30
"""Bytes that are left free of a card when it is decided what fits: a chunk of the head, and what the allocator rounds up."""
SECTIONS: dict[str, type[TrainStage]] = {"sft": Sft, "dpo": Dpo, "rm": Rm, "grpo": Rlvr}


@dataclass(frozen=True)
class Speed:
    """One case of speed."""

    stage: str
    """sft, dpo, rm or grpo."""
    shape: Shape
    row_tokens: int
    lengths: tuple[int, ...]
    """Tokens of the sequences of a step; of grpo (prompts, samples, tokens of a prompt, tokens of a completion)."""
    what: str
    """The lengths in words."""
    optimizer: bool = True
    """Whether a step is taken; otherwise it is forward and backward alone."""
    warmup: int = 2
    steps: int = 4

    @property
    def name(self) -> str:
        return f"{self.shape.name}, {self.stage}, {self.what}"


def measure(speed: Speed, device: torch.device, scratch: Path) -> Figures:
    """Tokens per second, MFU and memory of one case. Raises Unsuitable where it does not fit the card."""
    checkpointing = settle(speed, memory_of(device))
    groups = groups_of(speed)
    reset_memory(device)
    dtype = torch.float32 if speed.optimizer else torch.bfloat16
    stage = section_of(speed, checkpointing)
    model = load(speed, device, dtype, checkpointing)
    if not model.module.trunk.shares_prefix:
        raise AssertionError(f"{speed.shape.family} is not packed: its rows are {model.module.trunk.rows}")
    task = tasks(speed, model, groups, stage)
    batches = task.pack(task.rows, stage)
    if not speed.optimizer:
        seconds, loss = forward_and_backward(speed, model, batches, task)
    elif speed.stage == "grpo":
        seconds, loss = updates(speed, model, groups, stage)
    else:
        seconds, loss = fitted(speed, model, task, stage, scratch)
    if not math.isfinite(loss):
        raise AssertionError(f"the loss is {loss}")
    work = flops_of(speed.shape, batches, 1 if speed.stage == "rm" else None)
    settings = {"gradient_checkpointing": checkpointing, "row_tokens": speed.row_tokens, "optimizer": speed.optimizer}
    computed = sum(batch.n_tokens for batch in batches)
    return {**figures(useful_tokens(groups), computed, work, seconds, device), "settings": settings, "loss": round(loss, 4)}


# -- what fits ---------------------------------------------------------------------------------------------------------


def bytes_needed(speed: Speed, checkpointing: bool) -> float:
    """An estimate of the memory of a case.

    With the optimizer: bf16 weights, float32 masters, gradients and two moments, 18 bytes a parameter. Without: bf16 weights,
    and the largest gradient while it is dropped, which SPARE covers. Activations of a row are in bf16.
    """
    shape = speed.shape
    kept = shape.layers * shape.activations
    if checkpointing:
        kept = shape.layers * shape.hidden + shape.activations
    return (18 if speed.optimizer else 2) * shape.parameters + 2.0 * speed.row_tokens * kept


def settle(speed: Speed, memory: float | None) -> bool:
    """Whether a case needs gradient checkpointing to fit so many bytes; None has no end.

    Raises Unsuitable where it does not fit even so.
    """
    if memory is None:
        return False
    for checkpointing in (False, True):
        if bytes_needed(speed, checkpointing) <= memory - SPARE:
            return checkpointing
    needed = (bytes_needed(speed, True) + SPARE) / 2**30
    raise Unsuitable(f"needs about {needed:.0f} GiB, the card has {memory / 2**30:.0f}")


# -- what is trained ---------------------------------------------------------------------------------------------------


def groups_of(speed: Speed) -> list[Group]:
    """The groups of one step."""
    rows = Rows(speed.shape.vocabulary)
    if speed.stage == "grpo":
        return rows.sampled(*speed.lengths)
    return (rows.conversations if speed.stage == "sft" else rows.pairs)(speed.lengths)


def section_of(speed: Speed, checkpointing: bool) -> Any:
    """The recipe's section: one step takes all groups, and the length of a row alone says how they are packed."""
    fields: dict[str, Any] = {
        "data": (Source(name="made", fraction=1.0),),
        "max_length": max(speed.lengths),
        "batch": len(speed.lengths),
        "micro_batch": 1_000_000,
        "row_tokens": speed.row_tokens,
        "steps": speed.warmup + speed.steps,
        "learning_rate": 1e-6,
        "schedule": "constant",
        "clip_norm": 1.0,
        "precision": "bf16",
        "gradient_checkpointing": checkpointing,
    }
    if speed.stage == "dpo":
        fields |= {"loss": "dpo_norm", "beta": 5.0}
    if speed.stage == "grpo":
        prompts, samples, prompt, answer = speed.lengths
        sizes = {"prompts": prompts, "samples": samples, "max_prompt": prompt, "max_tokens": answer}
        fields |= {**sizes, "batch": prompts * samples, "max_length": prompt + answer}
    return SECTIONS[speed.stage](**fields)


def load(speed: Speed, device: torch.device, dtype: torch.dtype, checkpointing: bool) -> Any:
    """A Policy or a RewardModel of random weights that is ready to train."""
    ranks = speed.stage == "rm"
    auto_class = AutoModelForSequenceClassification if ranks else AutoModelForCausalLM
    model = new_model(speed.shape, device, dtype, auto_class, **({"num_labels": 1} if ranks else {}))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    loaded: Any = (RewardModel if ranks else Policy)(model, tokenizer(), device)
    start_training(loaded.module)
    return loaded


@dataclass(frozen=True)
class Task:
    """Groups, how they become batches, and the loss of a batch, as `fit` takes them."""

    rows: Sequence[Any]
    pack: Callable[[Sequence[Any], Any], list[Any]]
    objective: Callable[[Any], Loss]
    normaliser: Callable[[Any], float]


def tasks(speed: Speed, model: Any, groups: Sequence[Group], stage: Any) -> Task:
    """The stage's own functions, bound to the model."""
    if speed.stage == "sft":
        return Task(groups, pack_whole, lambda batch: sft.sft_loss(model.logps(batch)), count_tokens)
    if speed.stage == "dpo":
        uniform = -math.log(speed.shape.vocabulary)
        logps = [[uniform * completion.n_trained for completion in group.completions] for group in groups]
        pairs = [dpo.with_reference(group, numbers) for group, numbers in zip(groups, logps, strict=True)]
        return Task(pairs, dpo.pack_pairs, lambda batch: dpo.dpo(model, batch, stage), dpo.count_pairs)
    if speed.stage == "rm":
        return Task(groups, rm.pack_ranked, lambda batch: rm.ranking_loss(model, batch, stage), rm.count_pairs)
    rollouts = [to_rollout(group) for group in groups]
    return Task(rollouts, pack_sampled, lambda batch: rlvr.grpo(model, stage, batch), count_tokens)


def pack_sampled(rollouts: Sequence[Rollout], stage: Rlvr) -> list[RolloutBatch]:
    """Rows of rollouts as a single update trains on them, whose ratio is 1."""
    return [RolloutBatch(**vars(batch)) for batch in pack_rollouts(rollouts, stage)]


def to_rollout(group: Group) -> Rollout:
    """A group whose completions were worth 1 and -1 in turn."""
    count = len(group.completions)
    advantages = tuple(1.0 - 2.0 * (place % 2) for place in range(count))
    problem = Problem("", (), group.prompt, None, ())
    return Rollout(problem, group, ("",) * count, (Grades(None),) * count, advantages, advantages)


# -- what is timed -----------------------------------------------------------------------------------------------------


class TimedRun(Run):
    """A run that keeps the time at which its warm-up and its last step ended, and saves nothing."""

    def __init__(self, job: Job, parallel: Parallel, warmup: int) -> None:
        super().__init__(job, parallel)
        self.warmup, self.times = warmup, {0: 0.0}
        self.loss = math.nan

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        super().log(step, metrics)
        self.loss = metrics["loss"] or 0.0
        if step in (self.warmup, self.section.steps):
            self.times[step] = now(self.parallel.device)

    def end_step(self, last: bool, state: Callable[[int], Mapping[str, Any]] | None = None) -> None:
        """A checkpoint is not what is timed."""


def fitted(speed: Speed, model: Any, task: Task, stage: Any, scratch: Path) -> tuple[float, float]:
    """(seconds of a step, the last loss) of the loop that the stages run."""
    parallel = Parallel(stage)
    learner = Learner(model, stage, parallel)
    recipe = Recipe.model_validate({"name": "bench", speed.stage: stage})
    run = TimedRun(Job(recipe, speed.stage, scratch / speed.name.replace(" ", "-"), None), parallel, speed.warmup)
    fit(learner, run, task.rows, task.pack, task.objective, task.normaliser)
    return (run.times[stage.steps] - run.times[speed.warmup]) / speed.steps, run.loss


def updates(speed: Speed, policy: Policy, groups: Sequence[Group], stage: Rlvr) -> tuple[float, float]:
    """(seconds of an update, the last loss) of GRPO's learner."""
    parallel = Parallel(stage)
    learner = Learner(policy, stage, parallel)
    sampled = with_logps(policy, groups, stage)
    rollouts = StepRollouts(trained=sampled, sampled=sampled)
    models = rlvr.Models(policy, critic=None, kl_reference=None)
    began, metrics = 0.0, {}
    for index in range(speed.warmup + speed.steps):
        if index == speed.warmup:
            began = now(parallel.device)
        metrics = rlvr.update(learner, models, rollouts, stage, index, [stage.learning_rate])
    return (now(parallel.device) - began) / speed.steps, metrics["loss"]


def with_logps(policy: Policy, groups: Sequence[Group], stage: Rlvr) -> list[Rollout]:
    """Rollouts as if the policy itself had sampled them: an update refuses those of another model."""
    rollouts = [to_rollout(group) for group in groups]
    found: dict[tuple[int, int], list[float]] = {}
    with evaluating(policy.module):
        for batch in pack_rollouts(rollouts, stage):
            logps_N = policy.logps(batch, stage.temperature).cpu()
            for completion, place in enumerate(batch.index_C):
                found[place] = logps_N[batch.owner_N == completion].tolist()
    return [
        to_rollout(
            replace(
                group,
                completions=tuple(
                    replace(completion, sampler_logps=found[number, place]) for place, completion in enumerate(group.completions)
                ),
            )
        )
        for number, group in enumerate(groups)
    ]


def forward_and_backward(speed: Speed, model: Any, batches: Sequence[Batch], task: Task) -> tuple[float, float]:
    """(seconds of all rows of a step, their loss) without gradients being kept and without an optimizer."""
    drop_gradients(model.module)
    total = sum(task.normaliser(batch) for batch in batches)
    began, losses = 0.0, [torch.zeros(())]
    for index in range(speed.warmup + speed.steps):
        if index == speed.warmup:
            began = now(model.device)
        losses = []
        for batch in batches:
            loss = task.objective(batch.to(model.device))[0] / total
            loss.backward()
            losses.append(loss.detach())
    seconds = (now(model.device) - began) / speed.steps
    return seconds, float(torch.stack(losses).sum())


def drop_gradients(module: torch.nn.Module) -> None:
    """Forget every gradient as soon as it is there."""

    def forget(parameter: Tensor) -> None:
        parameter.grad = None

    for parameter in module.parameters():
        parameter.register_post_accumulate_grad_hook(forget)


# -- the cases ---------------------------------------------------------------------------------------------------------


def cases_of(shape: Shape, tiny: bool) -> list[Speed]:
    """What is timed of a shape, the most telling first, so that a budget that runs out costs the least."""
    optimizer = shape.takes_steps
    short, long, total = (48, 96, 192) if tiny else (4096, 16_384, 49_152 if optimizer else 32_768)
    rollouts = (2, 2, 8, 8) if tiny else (8, 8, 512, 512)
    mixed = tuple(ragged(total, short, 24 if tiny else 800))
    pace = {"warmup": 1, "steps": 1} if tiny else {"warmup": 2, "steps": 3} if optimizer else {"warmup": 1, "steps": 2}
    options: dict[str, Any] = {**pace, "optimizer": optimizer}
    return [
        Speed("sft", shape, long, mixed, "ragged, rows of 16k", **options),
        Speed("sft", shape, short, (short,) * 8, "full rows of 4k", **options),
        Speed("dpo", shape, long, mixed, "ragged pairs, rows of 16k", **options),
        Speed("grpo", shape, long, rollouts, "P = R = 512, G = 8", **options),
        Speed("rm", shape, long, mixed, "ragged pairs, rows of 16k", **options),
        Speed("sft", shape, long, (long,) * (total // long), "sequences of 16k", **options),
    ]
