"""The plan of a recipe as a person reads it: the resolved recipe in colour, then a block of facts for each stage."""

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from tulu.config.load import dump
from tulu.config.plan import (
    GPUS,
    Options,
    Size,
    batching,
    count_rows,
    flops_per_token,
    memory,
    optimizer_steps,
    processes_of,
    sequences_per_row,
    size_for,
    stages_of,
)
from tulu.config.schema import Recipe, TrainStage

GIB = 1024**3


def show(recipe: Recipe, options: Options, console: Console, only: str | None = None, start: str | None = None) -> None:
    """Print the resolved recipe and the plan of its stages, or of one."""
    console.print(Syntax(dump(recipe, only), "yaml", background_color="default", word_wrap=True))
    for name, stage in stages_of(recipe, only):
        console.print(table(recipe, name, stage, options, start))


def table(recipe: Recipe, name: str, stage: TrainStage, options: Options, start: str | None = None) -> Table:
    """The facts of one stage, one a line."""
    processes = processes_of(options)
    size = size_for(recipe, stage, options)
    rows = count_rows(stage.data)
    rows = options.rows if rows is None else rows
    steps = optimizer_steps(stage, rows)
    facts = {
        "start": start or stage.start or "decided when it runs: the earlier stage's model, else released, else model",
        "batch": str(batching(stage, processes)),
        "rows": f"{rows:,}" if rows is not None else "unknown here (data not read); say --rows N",
        "steps": f"{steps:,}" if steps is not None else f"unknown here: {stage.epochs:g} epochs of an unknown number of rows",
        "parameters": _parameters(size),
        "memory": _memory(stage, size, processes),
        "time": _time(stage, size, steps, options),
    }
    if name == "base":
        facts.pop("start")
    grid = Table(title=f"tulu {name}", title_justify="left", title_style="bold cyan", show_header=False, box=None, pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in facts.items():
        grid.add_row(key, value)
    return grid


def _parameters(size: Size | None) -> str:
    if size is None:
        return "unknown offline (no config.json at hand); say --parameters 7.3e9"
    active = f", {size.active:,.0f} active" if size.active != size.parameters else ""
    return f"{size.parameters:,.0f}{active}"


def _memory(stage: TrainStage, size: Size | None, processes: int) -> str:
    if size is None:
        return "unknown, as the parameters are"
    held = memory(stage, size, processes)
    parts = ", ".join(f"{what} {amount / GIB:.2f}" for what, amount in held.items())
    rest = "" if "activations" in held else "; activations unknown"
    return f"about {sum(held.values()) / GIB:.2f} GiB a process ({parts}{rest})"


def _time(stage: TrainStage, size: Size | None, steps: int | None, options: Options) -> str:
    if options.gpu is None:
        return f"say --gpu {'|'.join(GPUS)} for an estimate"
    if size is None or steps is None:
        return "unknown: parameters and steps are needed"
    length = options.tokens or float(stage.max_length)
    bound = "" if options.tokens else f"at most (every sequence counted as {stage.max_length} tokens; say --tokens N): "
    tokens = steps * stage.batch * sequences_per_row(stage) * length
    processes = processes_of(options)
    seconds = tokens * flops_per_token(stage, size) / (processes * GPUS[options.gpu][0] * options.mfu)
    hours = seconds / 3600
    cost = "" if options.price is None else f", {processes * hours:,.1f} GPU hours, cost {processes * hours * options.price:,.2f}"
    return f"estimate, {bound}{hours:,.2f} h on {processes} {options.gpu} at {options.mfu:.0%} of peak{cost}"
