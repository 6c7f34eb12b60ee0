"""`tulu evaluate`: the options of a model's evaluation, or of a recipe's evaluate stage."""

from collections.abc import Sequence
from pathlib import Path

from tulu.errors import RecipeError
from tulu.evaluation.options import EvaluateOptions


def is_recipe(name: str) -> bool:
    """Whether `tulu evaluate NAME` names a recipe; anything else is a model."""
    return name.endswith((".yaml", ".yml"))


def as_overrides(options: EvaluateOptions) -> list[str]:
    """The options as overrides of a recipe. Raises RecipeError for one that a recipe has no field for."""
    if options.out is not None:
        raise RecipeError("--out belongs to a model's evaluation; a recipe's result lies under --runs")
    fields = [f"evaluate.{name}={value}" for name, value in options.recipe_fields().items()]
    return fields if options.template is None else [*fields, f"template={options.template}"]


def evaluate_model(
    model: str, overrides: Sequence[str] | None, dry_run: bool, fresh: bool, runs: Path, options: EvaluateOptions
) -> None:
    """Evaluate one model. Raises RecipeError for what only a recipe can be given."""
    if overrides or dry_run:
        refused = f"{overrides[0]}: a model has no fields to override" if overrides else "--dry-run: a model has no plan"
        raise RecipeError(f"{refused}; use the options of tulu evaluate --help, or name a recipe")
    if options.task is None:
        raise RecipeError("tulu evaluate MODEL needs --task NAME (gsm8k, math, sums, or any name together with --data FILE)")
    from tulu.evaluation.evaluate import evaluate_model as run

    run(model, options, fresh=fresh, runs=runs)
