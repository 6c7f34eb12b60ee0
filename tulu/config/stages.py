"""The stage table: one row for each kind of stage. Whatever differs between them and fits into a column stands here.

This file imports nothing heavy, because `tulu --help` makes the commands of the stages from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

StageName = Literal["base", "sft", "merge", "dpo", "rm", "rlvr", "evaluate"]
RowKind = Literal["text", "sft", "pairs", "rlvr"]
Unit = Literal["sequences", "pairs", "completions", "prompts"]


@dataclass(frozen=True)
class Stage:
    """One row of the table."""

    name: StageName
    """Its key in a recipe, its command and its folder in a run; recipe_stages.py says how several of a kind are told apart."""
    section: str
    """Dotted name of the class that holds the stage's recipe fields."""
    runner: str
    """Dotted name of the function that runs a Job of the stage and returns the folder of its result."""
    help: str
    """The stage's line in `tulu --help`."""
    rows: RowKind
    """What a row of the stage's data set is read as."""
    unit: Unit
    """What the recipe's `batch` counts."""
    starts_from: tuple[StageName, ...] = ()
    """Earlier stages whose model this one takes, best first. A stage that names none makes a new model."""
    trains: bool = True
    """Whether the stage trains a model; the others only read one."""
    yields_policy: bool = True
    """Whether the stage's model writes answers, so that it can be evaluated."""
    drops_long: bool = False
    """Whether rows longer than `max_length` are left out; otherwise they are cut."""
    hidden: bool = False
    """Whether `tulu --help` leaves the command out."""

    @property
    def makes_model(self) -> bool:
        """Whether the stage makes a new model in place of continuing with an earlier one."""
        return not self.starts_from

    @property
    def merges(self) -> bool:
        """Whether the stage makes a policy without training one."""
        return self.yields_policy and not self.trains

    @property
    def makes_folder(self) -> bool:
        """Whether the stage leaves a model in the folder of the run: it trains one, or merges several."""
        return self.trains or self.merges

    @property
    def sequences_per_unit(self) -> int:
        """Sequences of up to `max_length` tokens in one unit of the batch."""
        return 2 if self.unit == "pairs" else 1


_ROWS = (
    Stage(
        name="base",
        section="tulu.config.schema.Base",
        runner="tulu.stages.base.run",
        help="Train a new model from scratch on plain text.",
        rows="text",
        unit="sequences",
        hidden=True,
    ),
    Stage(
        name="sft",
        section="tulu.config.schema.Sft",
        runner="tulu.stages.sft.run",
        help="Supervised fine-tuning on the assistant's turns.",
        rows="sft",
        unit="sequences",
        starts_from=("base",),
    ),
    Stage(
        name="merge",
        section="tulu.config.schema.Merge",
        runner="tulu.stages.merge.run",
        help="Merge several models into their weighted mean, such as SFT runs that differ in their learning rate.",
        rows="sft",
        unit="sequences",
        starts_from=("sft", "base"),
        trains=False,
    ),
    Stage(
        name="dpo",
        section="tulu.config.schema.Dpo",
        runner="tulu.stages.dpo.run",
        help="Preference optimisation, from the SFT model.",
        rows="pairs",
        unit="pairs",
        starts_from=("merge", "sft"),
    ),
    Stage(
        name="rm",
        section="tulu.config.schema.Rm",
        runner="tulu.reward_models.training.run",
        help="Train a reward model on preference pairs, from the SFT model.",
        rows="pairs",
        unit="pairs",
        starts_from=("merge", "sft"),
        yields_policy=False,
        drops_long=True,
    ),
    Stage(
        name="rlvr",
        section="tulu.config.schema.Rlvr",
        runner="tulu.stages.rlvr.run",
        help="Reinforcement learning with verifiable rewards, from the DPO model (else the SFT model).",
        rows="rlvr",
        unit="completions",
        starts_from=("dpo", "merge", "sft"),
        drops_long=True,
    ),
    Stage(
        name="evaluate",
        section="tulu.config.schema.Evaluate",
        runner="tulu.evaluation.evaluate.run",
        help="Accuracy on a task, with a 95 % interval.",
        rows="rlvr",
        unit="prompts",
        starts_from=("rlvr", "dpo", "merge", "sft", "base"),
        trains=False,
        yields_policy=False,
    ),
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _ROWS}
"""Every stage by its name, in the order of `tulu run`."""
TRAINING: tuple[Stage, ...] = tuple(stage for stage in _ROWS if stage.trains)
"""The stages that train a model."""


def resolve(name: str) -> Any:
    """The object with this dotted name, such as `tulu.stages.sft.run`; its module is imported."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)
