"""A whole recipe: every stage in order, held-out accuracy after each, and a summary of what each one did."""

import logging
from dataclasses import replace
from pathlib import Path

from tulu.config.job import START, Job, folders_of_run, make_job
from tulu.config.lock import only_user
from tulu.config.processes import is_main_process
from tulu.config.recipe_stages import stages_in
from tulu.config.schema import Recipe
from tulu.config.shortage import telling_shortage
from tulu.config.stages import TRAINING, resolve
from tulu.errors import RecipeError
from tulu.evaluation.evaluate import answer_all, evaluate_suite
from tulu.model.gathering import forget_sharding
from tulu.report.writing import leave_report
from tulu.stages.summary import is_current, summarise
from tulu.train.attempts import attempting

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
    first = next((stage.key for stage in stages if stage.row.yields_policy), None)
    with only_user(*folders_of_run(recipe, runs)):
        for stage in stages:
            log.info("── %s", stage.key)
            job = make_job(recipe, stage.key, runs, fresh)
            if stage.key == first and job.start is not None:
                answer(job, job.start, START)
            with attempting(job):
                model = resolve(stage.row.runner)(job)
            if stage.row.yields_policy:
                answer(job, str(model), stage.name)
        if is_main_process():
            do_suite(recipe, runs)
            policies = [stage.name for stage in stages if stage.row.yields_policy]
            began = [START] if (folder / "evaluate" / START / "results.json").is_file() else []
            summarise(recipe, folder, [*began, *policies])
            leave_report(folder)
    return folder


def answer(job: Job, model: str, name: str) -> None:
    """Held-out answers of a model that a stage began with or made, where the recipe has an evaluation that is not done yet."""
    settings, results = job.recipe.evaluate, job.folder.parent / "evaluate" / name
    if settings is None or not is_main_process() or is_current(results, model, settings):
        return
    forget_sharding()
    revision = job.revision if name == START else None
    trusted = job.recipe.trust_remote_code
    with telling_shortage(replace(job, stage="evaluate")):
        answer_all(model, settings, job.template[0], results, revision=revision, trust_remote_code=trusted)


def do_suite(recipe: Recipe, runs: Path) -> None:
    """The suite of the recipe, where it names one, on the last model that answers."""
    if recipe.evaluate is None or recipe.evaluate.suite is None:
        return
    job = make_job(recipe, "evaluate", runs)
    if job.start is not None:
        forget_sharding()
        with telling_shortage(job):
            evaluate_suite(job.start, job.section, job.template[0], job.folder, False, job.revision, recipe.trust_remote_code)
