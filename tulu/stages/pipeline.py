"""A whole recipe: every stage in order, held-out accuracy after each, and a summary of what each one did."""

import logging
from pathlib import Path

from tulu.config.job import folders_of_run, make_job
from tulu.config.lock import only_user
from tulu.config.processes import is_main_process
from tulu.config.recipe_stages import stages_in
from tulu.config.schema import Recipe
from tulu.config.shortage import telling_shortage
from tulu.config.stages import TRAINING, resolve
from tulu.errors import RecipeError
from tulu.evaluation.evaluate import answer_all
from tulu.model.gathering import forget_sharding
from tulu.report.writing import leave_report
from tulu.stages.summary import is_current, summarise

log = logging.getLogger("tulu")


def run_recipe(recipe: Recipe, runs: Path, fresh: bool = False) -> Path:
    """Train every stage, evaluate each policy and write the summary; returns the folder of the run.

    What an earlier call finished is not done again. Raises RecipeError if the recipe has no stage that trains, and InUseError
    if another process is at work in the run.
    """
    stages = [stage for stage in stages_in(dict(recipe)) if stage.row.makes_folder]
    if not stages:
        names = ", ".join(stage.name for stage in TRAINING)
        raise RecipeError(f"recipe {recipe.name} has no stage to run; it needs one of {names}")
    folder = runs / recipe.name
    with only_user(*folders_of_run(recipe, runs)):
        for stage in stages:
            log.info("── %s", stage.key)
            job = make_job(recipe, stage.key, runs, fresh)
            with telling_shortage(job):
                model = resolve(stage.row.runner)(job)
            if recipe.evaluate is not None and stage.row.yields_policy and is_main_process():
                results = folder / "evaluate" / stage.name
                if not is_current(results, model, recipe.evaluate):
                    forget_sharding()
                    trusted = recipe.trust_remote_code
                    answer_all(str(model), recipe.evaluate, job.template[0], results, trust_remote_code=trusted)
        if is_main_process():
            summarise(recipe, folder, [stage.name for stage in stages if stage.row.yields_policy])
            leave_report(folder)
    return folder
