"""What `tulu plan` and `--dry-run` print: a block of facts for each stage, and the resolved recipe in colour."""

from collections.abc import Mapping

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from tulu.config.job import stages_of
from tulu.config.load import dump
from tulu.config.options import PlanOptions
from tulu.config.plan import GPUS, Size, batch_equation, count_rows, flops_per_token, memory, optimizer_steps, size_for
from tulu.config.processes import world_size
from tulu.config.provenance import Origin
from tulu.config.recipe_stages import RecipeStage
from tulu.config.schema import Recipe, TrainStage
from tulu.config.stages import Stage
from tulu.config.unknown import open_fields
from tulu.config.yaml_text import annotate

GIB = 1024**3


def show_dry_run(
    recipe: Recipe,
    origins: Mapping[str, Origin],
    only: str | None = None,
    start: str | None = None,
    processes: int | None = None,
) -> None:
    """Print the resolved recipe with the origin of every value, and its plan; with `only`, those of one stage, which starts from
    `start`."""
    text = annotate(dump(recipe, only), {key: str(origin) for key, origin in origins.items()})
    # Lines are never broken, so that what is written to a file is a recipe.
    Console().print(Syntax("", "yaml", background_color="default").highlight(text), soft_wrap=True, end="")
    show_plan(recipe, PlanOptions(processes=processes), only, start)


def show_plan(recipe: Recipe, options: PlanOptions, only: str | None = None, start: str | None = None) -> None:
    """Print the plan of every stage; with `only`, of that one, which starts from `start`."""
    for stage in stages_of(recipe, only):
        Console().print(_table(recipe, stage, options, start))
    if waiting := open_fields(recipe, [stage.key for stage in stages_of(recipe, only)]):
        listed = "; ".join(f"{field} ({why})" for field, why in waiting.items())
        Console().print(f"unknown, to be given before it trains: {listed}", soft_wrap=True, markup=False, highlight=False)


def _table(recipe: Recipe, planned: RecipeStage[TrainStage], options: PlanOptions, start: str | None) -> Table:
    """The facts of one stage, one in each line."""
    stage, section = planned.row, planned.section
    processes = options.processes or world_size()
    size = size_for(recipe, section, options)
    rows = count_rows(section.data)
    rows = options.rows if rows is None else rows
    steps = optimizer_steps(section, rows)
    facts = {
        "start": start or section.start or "decided when it runs: the earlier stage's model, else released, else model",
        "batch": f"{batch_equation(section, processes)} ({stage.unit})",
        "rows": f"{rows:,}" if rows is not None else "unknown here (data not read); give --rows N",
        "steps": f"{steps:,}" if steps is not None else f"unknown here: {section.epochs:g} epochs of an unknown number of rows",
        "parameters": _parameters(size),
        "memory": _memory(section, size, processes),
        "time": _time(stage, section, size, steps, processes, options),
    }
    if stage.makes_model:
        facts.pop("start")
    grid = Table(
        title=_title(planned), title_justify="left", title_style="bold cyan", show_header=False, box=None, pad_edge=False
    )
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in facts.items():
        grid.add_row(key, value)
    return grid


def _title(planned: RecipeStage[TrainStage]) -> str:
    """The command of a stage, and its name where a list holds several."""
    return f"tulu {planned.row.name}" + ("" if planned.place is None else f": {planned.name}")


def _parameters(size: Size | None) -> str:
    if size is None:
        return "unknown offline (no config.json at hand); give --parameters 7.3e9"
    active = f", {size.active:,.0f} active" if size.active != size.parameters else ""
    return f"{size.parameters:,.0f}{active}"


def _memory(stage: TrainStage, size: Size | None, processes: int) -> str:
    if size is None:
        return "unknown, because the parameters are"
    amounts = memory(stage, size, processes)
    parts = ", ".join(f"{part} {amount / GIB:.2f}" for part, amount in amounts.items())
    rest = "" if "activations" in amounts else "; activations unknown"
    return f"about {sum(amounts.values()) / GIB:.2f} GiB a process ({parts}{rest})"


def _time(stage: Stage, section: TrainStage, size: Size | None, steps: int | None, processes: int, options: PlanOptions) -> str:
    if options.gpu is None:
        return f"give --gpu {'|'.join(GPUS)} for an estimate"
    if size is None or steps is None:
        return "unknown: parameters and steps are needed"
    length = options.tokens or float(section.max_length)
    bound = "" if options.tokens else f"at most (every sequence counted as {section.max_length} tokens; give --tokens N): "
    tokens = steps * section.batch * stage.sequences_per_unit * length
    seconds = tokens * flops_per_token(section, size) / (processes * GPUS[options.gpu][0] * options.mfu)
    hours = seconds / 3600
    cost = "" if options.price is None else f", {processes * hours:,.1f} GPU hours, cost {processes * hours * options.price:,.2f}"
    return f"estimate, {bound}{hours:,.2f} h on {processes} {options.gpu} at {options.mfu:.0%} of peak{cost}"
