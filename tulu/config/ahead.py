"""What is looked at before the first of several stages begins, because the last would find it after hours."""

from collections.abc import Sequence
from pathlib import Path

from tulu.config.model_folder import read_config
from tulu.config.positions import length_problem, longest_of
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
        folder = Path(start) if start is not None else None
        if stage.row.trains and folder is not None and folder.is_dir() and (config := read_config(folder)) is not None:
            problems.append(length_problem(*longest_of(stage.section, stage.key), config, str(folder)))
    if told := [problem for problem in problems if problem is not None]:
        raise RecipeError("\n".join(told))
    asked = is_main_process() and any(samples_with_vllm(stage.section) for stage in stages)
    if asked and (problem := vllm_problem()):
        raise EngineMissing(problem)
