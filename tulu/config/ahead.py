"""What is looked at before the first of several stages begins, because the last would find it after hours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu.config.model_folder import read_config
from tulu.config.positions import answer_problem, length_problem, longest_of
from tulu.config.processes import is_main_process
from tulu.config.recipe_stages import stages_in
from tulu.config.schema import Evaluate, Recipe
from tulu.config.suite_needs import recipe_lacks
from tulu.config.unknown import demand
from tulu.config.vllm_import import samples_with_vllm, vllm_problem
from tulu.errors import EngineMissing, RecipeError


def look_ahead(recipe: Recipe, keys: Sequence[str]) -> None:
    """Refuse stages that cannot run: fields that were never published, documents too long, a vLLM that cannot be imported, a
    suite for which something is missing.

    `keys` are the stages that will run, or their rows. The engine of one stage alone is looked at as well: it is started only
    when all rows are read and their ground truths are proven.
    """
    demand(recipe, list(keys))
    stages = [stage for stage in stages_in(dict(recipe)) if stage.key in keys or stage.row.name in keys]
    problems: list[str | None] = []
    for stage in stages:
        if isinstance(stage.section, Evaluate):
            problems += recipe_lacks(stage.section)
        start = stage.section.start if stage.row.trains and stage.section.start else recipe.model
        config, name = _config_of(start, recipe)
        if config is not None and stage.row.trains:
            problems.append(length_problem(*longest_of(stage.section, stage.key), config, name))
        elif config is not None and isinstance(stage.section, Evaluate):
            problems.append(answer_problem(stage.section, config, name))
    if told := [problem for problem in problems if problem is not None]:
        raise RecipeError("\n".join(told))
    asked = is_main_process() and any(samples_with_vllm(stage.section) for stage in stages)
    if asked and (problem := vllm_problem()):
        raise EngineMissing(problem)


def _config_of(start: str | None, recipe: Recipe) -> tuple[Mapping[str, Any] | None, str]:
    """The configuration of the model that a stage starts from, and what messages call it; None where it is not here."""
    if start is not None:
        return (read_config(Path(start)) if Path(start).is_dir() else None), start
    return (None if recipe.base is None else recipe.base.config), "the model of base"
