"""A whole recipe: every stage in order, held-out accuracy after each, and a summary of what each one did."""

import logging
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from tulu.config.load import STAGES, make_job
from tulu.config.schema import Recipe
from tulu.errors import RecipeError
from tulu.evaluation.evaluate import answer_all
from tulu.model.parallel import forget_sharding, is_main_process
from tulu.stages.summary import is_current, summarise

log = logging.getLogger("tulu")

MODULES = MappingProxyType(
    {
        "base": "tulu.stages.base",
        "sft": "tulu.stages.sft",
        "dpo": "tulu.stages.dpo",
        "rm": "tulu.reward_models.training",
        "rlvr": "tulu.stages.rlvr",
    }
)
POLICIES = ("base", "sft", "dpo", "rlvr")
"""Stages whose model answers questions."""


def run_recipe(recipe: Recipe, runs: Path, fresh: bool = False) -> Path:
    """Run what has not been run yet, evaluate, and summarise; returns the folder of the run.

    Raises RecipeError if the recipe has no stage at all.
    """
    stages = [stage for stage in STAGES if dict(recipe)[stage] is not None]
    if not stages:
        raise RecipeError(f"recipe {recipe.name} has no stage to run; it needs one of {', '.join(STAGES)}")
    folder = runs / recipe.name
    for stage in stages:
        log.info("── %s", stage)
        job = make_job(recipe, stage, runs, fresh)
        model = import_module(MODULES[stage]).run(job)
        if recipe.evaluate is not None and stage in POLICIES and is_main_process():
            results = folder / "evaluate" / stage
            if not is_current(results, model, recipe.evaluate):
                forget_sharding()
                answer_all(str(model), recipe.evaluate, recipe.template, results)
    if is_main_process():
        summarise(recipe, folder, [stage for stage in stages if stage in POLICIES])
    return folder
