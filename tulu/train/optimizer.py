"""A model with its optimizer, and the learning rate of every step."""

import math
from typing import Protocol

import torch
from torch import nn

from tulu.config.schema import TrainStage
from tulu.model.parallel import Parallel
from tulu.train.meter import Meter
from tulu.train.offloaded import OffloadedAdamW


class Trainable(Protocol):
    """What a learner trains, such as a policy or a reward model."""

    runner: nn.Module

    @property
    def module(self) -> nn.Module:
        """The module that is sharded, wrapped and checkpointed."""


class Learner:
    """A model with its optimizer, set up on this process among the others."""

    def __init__(self, model: Trainable, stage: TrainStage, parallel: Parallel) -> None:
        self.model = model
        self.parallel = parallel
        self.meter = Meter(model.module, parallel)
        # Policy and value model may have gradients that are clipped apart; each is a group of parameters then.
        parts = [model.module] if len(parallel.clip_norms) == 1 else list(model.module.children())
        # DeepSpeed offloads by itself.
        kind = OffloadedAdamW if stage.offload_optimizer and not parallel.deepspeed else torch.optim.AdamW
        optimizer = kind(
            [{"params": [parameter for parameter in part.parameters() if parameter.requires_grad]} for part in parts],
            lr=stage.learning_rate,
            betas=(stage.adam_beta1, stage.adam_beta2),
            eps=stage.adam_epsilon,
            weight_decay=stage.weight_decay,
            fused=not parallel.deepspeed,
        )
        model.runner, self.optimizer = parallel.prepare(model.module, optimizer)

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def learning_rate(stage: TrainStage, step: int, total: int) -> float:
    """The rate of step 0 … total-1: a linear warm-up from 0, then the schedule (as transformers.get_scheduler)."""
    warmup = int(stage.warmup * total)
    if step < warmup:
        return stage.learning_rate * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    shapes = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return stage.learning_rate * shapes[stage.schedule]


def total_steps(stage: TrainStage, rows: int) -> int:
    """Optimizer steps of a stage over a mix of so many rows."""
    return stage.steps or max(1, math.ceil(round(rows * (stage.epochs or 1.0)) / stage.batch))
