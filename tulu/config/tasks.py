"""The task table: tasks that `tulu evaluate` knows by name, and the data sets that are generated in place of being read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tulu.config.parts import Source


@dataclass(frozen=True)
class EvaluationTask:
    """One row of the table."""

    source: Source
    """The held-out problems."""
    verifier: str | None = None
    """What scores an answer; None takes the verifier that each row names."""
    generated: Mapping[str, int] = field(default_factory=dict)
    """Splits that are generated (as `TASK:SPLIT`), each with the rows it has where a recipe states no count."""


TASKS: Mapping[str, EvaluationTask] = {
    "gsm8k": EvaluationTask(Source(name="openai/gsm8k", subset="main", split="test", fraction=1.0), "gsm8k"),
    "math": EvaluationTask(Source(name="HuggingFaceH4/MATH-500", split="test", fraction=1.0), "math"),
    "sums": EvaluationTask(
        Source(name="sums:held_out", count=500),
        generated={
            "base": 20000,
            "sft": 8000,
            "tools": 8000,
            "pairs": 2000,
            "train": 5000,
            "held_out": 500,
            "held_out_pairs": 500,
        },
    ),
}
"""Every task by its name. Tasks that are not listed need `data` of their own."""
GENERATED: Mapping[str, Mapping[str, int]] = {name: task.generated for name, task in TASKS.items() if task.generated}
"""The splits of each task whose rows are generated."""
