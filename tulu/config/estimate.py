"""What a stage would take: arithmetic, time, cost and energy, from what is known of it.

Time = operations / (GPUs × peak × MFU), where recomputed activations count as operations: gradient checkpointing makes a step
longer. In RLVR sampling comes on top, because the same GPUs first sample and then learn. Where engines have GPUs of their own, or
groups are replaced, a step takes what the simulated loop takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tulu.config.cards import POWER_SHARE, PUE
from tulu.config.facts import Facts
from tulu.config.operations import learner_operations, load_of, rollout_load, stage_operations
from tulu.config.plan import units_of_step
from tulu.config.sampling_time import Sampling, sampling
from tulu.config.schema import Rlvr
from tulu.config.splits import Split, divider_of


@dataclass(frozen=True)
class Work:
    """What a stage computes, in all its steps."""

    tokens: float
    operations: Mapping[str, float]
    """By what they are for; those of sampling excepted."""
    sampled: Sampling | None = None
    """The sampling of one step of RLVR, where a GPU was named."""
    split: Split | None = None
    """The simulated loop in its place, where sampling and learning do not just take turns."""


@dataclass(frozen=True)
class Bill:
    """What a stage costs."""

    learner_hours: float
    sampling_hours: float
    """Those in which the learner waits for rollouts."""
    gpu_hours: float
    kwh: float
    cost: float | None
    """In the currency of the price; None without one."""

    @property
    def hours(self) -> float:
        return self.learner_hours + self.sampling_hours


def work_of(facts: Facts) -> Work | None:
    """What a stage computes; None where its model or its steps are not known."""
    if facts.size is None or facts.steps is None:
        return None
    return _rollouts(facts, facts.section) if isinstance(facts.section, Rlvr) else _fixed(facts)


def _fixed(facts: Facts) -> Work:
    """The work of a stage over fixed data."""
    section = facts.section
    assert facts.size is not None
    assert facts.steps is not None
    units = facts.steps * units_of_step(section, facts.lengths.tokens)
    if section.steps is None and section.epochs is not None and facts.rows is not None:
        # The last step is smaller than the others.
        units = facts.rows * section.epochs
    load = load_of(section, facts.size, facts.lengths)
    return Work(units * load.tokens, stage_operations(section, facts.size, load, units, facts.rows))


def _rollouts(facts: Facts, section: Rlvr) -> Work:
    """The work of RLVR. What is sampled for groups that are replaced is in the time alone."""
    assert facts.size is not None
    assert facts.steps is not None
    load = rollout_load(section, facts.size, facts.prompt, facts.lengths)
    step = learner_operations(section, facts.size, facts.value, facts.prompt, facts.lengths, facts.teacher)
    sampled, split = None, None
    slow = facts.grading is not None and facts.grading.given
    if section.resources.engines or (facts.teaching < 1 and section.refill) or slow:
        divider = divider_of(facts)
        split = None if divider is None else divider.stated()
    elif facts.card is not None:
        sampled = sampling(section, facts.size, facts.card, facts.processes, facts.mfu, facts.prompt, facts.lengths)
    tokens = facts.steps * section.prompts * load.tokens
    return Work(tokens, {name: facts.steps * amount for name, amount in step.items()}, sampled, split)


def bill_of(facts: Facts, work: Work | None, price: float | None) -> Bill | None:
    """What that work costs; None without a GPU."""
    if work is None or facts.card is None or facts.steps is None:
        return None
    peak = facts.card.peak_fp32 if facts.section.precision == "fp32" else facts.card.peak
    learner = sum(work.operations.values()) / (facts.processes * peak * facts.mfu) / 3600
    sampling_hours = 0.0 if work.sampled is None else facts.steps * work.sampled.seconds / 3600
    gpus = facts.processes
    if work.split is not None:
        hours, waits = facts.steps * work.split.outcome.step_seconds / 3600, work.split.outcome.learner_idle
        learner, sampling_hours, gpus = hours * (1 - waits), hours * waits, work.split.gpus
    gpu_hours = gpus * (learner + sampling_hours)
    kwh = gpu_hours * facts.card.watts / 1000 * POWER_SHARE * PUE
    return Bill(learner, sampling_hours, gpu_hours, kwh, None if price is None else gpu_hours * price)
