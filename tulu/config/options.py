"""How an option of a command is declared, and the options of `tulu plan`.

The options of a command are the fields of a frozen dataclass: name, type, default, bounds and help of each stand there
and nowhere else, and `tulu/commands/options.py` makes the command line from them. `tulu --help` reads every option
class, so the files that hold them import nothing heavy.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

EngineName = Literal["auto", "transformers", "vllm"]
"""What samples: auto is vllm where it is installed and there is a GPU, else transformers."""
BadGolds = Literal["stop", "skip"]
"""What is done with a source of which over 1 % of the ground truths cannot be used."""
USUAL_ANSWER = 512
"""Most tokens of an answer where nobody gave a number, and the model has the positions."""
USUAL_BATCH = 256
"""Prompts of an evaluation that are answered side by side where nobody gave a number."""
Gpu = Literal["a100", "h100", "h200"]


@dataclass(frozen=True)
class Option:
    """What an option's field says in `Annotated`, besides its type."""

    help: str
    min: float | None = None
    max: float | None = None
    flag: str | None = None
    """Spelling on the command line where it is not `--` and the field's name; `--x/--no-x` gives both."""
    old_flag: str | None = None
    """An earlier spelling, which is still taken."""


@dataclass(frozen=True)
class PlanOptions:
    """What the command line adds to a recipe for an estimate."""

    processes: Annotated[
        int | None,
        Option("GPUs, or CPU processes; default: those that a launcher started.", min=1, flag="--gpus", old_flag="--processes"),
    ] = None
    gpu: Annotated[Gpu | None, Option("Estimate the time on this GPU.")] = None
    price: Annotated[float | None, Option("Price of one GPU for one hour.", min=0)] = None
    mfu: Annotated[
        float | None,
        Option("Share of the GPU's peak that training reaches; default: 0.4, of a mixture of experts 0.2.", min=0.01, max=1),
    ] = None
    parameters: Annotated[float | None, Option("Parameters of the model if its config is not here: 7.3e9.", min=1)] = None
    rows: Annotated[int | None, Option("Rows of a mix that cannot be counted here.", min=1)] = None
    tokens: Annotated[
        float | None,
        Option("Mean tokens of a sequence, in RLVR of an answer; default: what is known of the data, else an assumption.", min=1),
    ] = None
    teaching: Annotated[
        float | None,
        Option("Share of the groups of RLVR that teach something, because their rewards differ; default: all.", min=0.01, max=1),
    ] = None
    grading: Annotated[
        float | None, Option("Seconds that the grades of a group of RLVR take beside its verdicts; default: 0.1.", min=0)
    ] = None
    grade_seconds: Annotated[
        float | None,
        Option("Seconds of a grader for one answer of RLVR; default: what was measured of rules and of programs.", min=0),
    ] = None
    sync: Annotated[
        float | None, Option("Seconds in which the engines of RLVR take new weights; default: at 1 GB a second.", min=0)
    ] = None
