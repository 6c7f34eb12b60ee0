"""`tulu plan` and `--dry-run`: what a recipe would do."""

from typing import TYPE_CHECKING

from tulu.commands.options import Overrides, RecipeArgument
from tulu.config.options import PlanOptions
from tulu.errors import RecipeError

if TYPE_CHECKING:
    from tulu.config.schema import Recipe


def plan(recipe: RecipeArgument, overrides: Overrides = None, *, options: PlanOptions) -> None:
    """Batch, memory, time and cost of a recipe, before a GPU is lit."""
    from tulu.config.load import load_recipe

    if options.price is not None and options.gpu is None:
        raise RecipeError("--price needs --gpu a100, h100 or h200")
    loaded = load_recipe(recipe, overrides or (), options.processes)
    from tulu.commands.plan_table import show_plan

    show_plan(loaded, options)


def dry_run(recipe: "Recipe", only: str | None = None, start: str | None = None) -> None:
    """Print the resolved recipe and its plan; with `only`, those of one stage, which starts from `start`."""
    from tulu.commands.plan_table import show_plan, show_recipe

    show_recipe(recipe, only)
    show_plan(recipe, PlanOptions(), only, start)
