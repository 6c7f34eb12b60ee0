"""Mistakes in what a recipe looks at while it trains."""

from collections.abc import Iterator
from pathlib import Path

from tulu.config.locate import source_problem
from tulu.config.mistakes import Mistake
from tulu.config.tasks import TASKS
from tulu.config.values import Values
from tulu.errors import nearest


def eval_every(stage: Values) -> Iterator[Mistake]:
    """Something is looked at if anything is asked for, and only then."""
    watched = [key for key in ("eval_task", "eval_data") if stage.fields.get(key) is not None]
    if stage.eval_every is None:
        for key in watched:
            yield stage.mistake(key, f"nothing looks at it; set {stage.name}.eval_every to a number of steps")
    elif not watched and not stage.fields.get("held_out"):
        rows = ", or eval_data or held_out (rows that are not trained on)" if "held_out" in stage.declared else ""
        yield stage.mistake("eval_every", f"there is nothing to look at; set {stage.name}.eval_task (a task){rows}")


def eval_task(stage: Values) -> Iterator[Mistake]:
    """The task is one of those that are known, or rows that are there, and the stage's model can answer it."""
    if stage.eval_task is None:
        return
    if not stage.stage.yields_policy:
        text = "a reward model writes no answers; set eval_data or held_out, by which its accuracy is measured"
        yield stage.mistake("eval_task", text)
    elif stage.stage.makes_model and stage.processes > 1 and stage.sharding in ("zero3", "fsdp2"):
        text = f"no process has the whole new model to answer with under sharding: {stage.sharding}; leave eval_task out"
        yield stage.mistake("eval_task", text)
    elif stage.eval_task not in TASKS:
        if "/" not in stage.eval_task and not Path(stage.eval_task).suffix and ":" not in stage.eval_task:
            text = f"is no task{nearest(stage.eval_task, TASKS)}; known are {', '.join(TASKS)}, or name a file of problems"
            yield stage.mistake("eval_task", text)
        elif problem := source_problem(stage.eval_task):
            yield stage.mistake("eval_task", problem)


def eval_data(stage: Values) -> Iterator[Mistake]:
    """Rows that are not trained on are either a share of the mix or rows of their own, and are there."""
    if stage.eval_data is None:
        return
    if stage.held_out:
        yield stage.mistake("eval_data", f"held_out keeps {stage.held_out:g} of the mix from training too; keep one of the two")
    for index, source in enumerate(stage.eval_data):
        if problem := source_problem(source.name):
            yield stage.mistake(f"eval_data.{index}.name", problem, source.name)
