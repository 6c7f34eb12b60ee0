"""What this machine lacks for the tasks of a suite, so that nothing is trained or loaded for one that cannot be done."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tulu.config.locate import source_problem
from tulu.config.parts import Source
from tulu.config.schema import Evaluate
from tulu.config.suites import SuiteTask, load_suite
from tulu.errors import RecipeError
from tulu.verifiers.registry import check_name

LM_EVAL = "lm_eval"
"""The package that has the tasks which a suite takes from lm-eval."""
NOT_INSTALLED = "lm-eval is not installed: pip install 'tulu[eval]'"


class Cures(NamedTuple):
    """What to do about a task that cannot be done; {name} stands for the task."""

    data: str
    judge: str
    skip: str


ON_THE_COMMAND_LINE = Cures(
    "give --data {name}=FILE", "give --judge MODEL, with --judge-endpoint URL where it is served elsewhere", "or --skip {name}"
)
NAMED_ALONE = Cures(ON_THE_COMMAND_LINE.data, ON_THE_COMMAND_LINE.judge, "or leave --task {name} out")
"""For a task of a suite that the command names itself."""
IN_A_RECIPE = Cures(
    "name them as its data in a suite of your own",
    "set evaluate.judge, and evaluate.judge_endpoint where it is served elsewhere",
    "or add {name} to evaluate.skip",
)


def has_lm_eval() -> bool:
    """Whether lm-eval is there; this does not import it."""
    return find_spec(LM_EVAL) is not None


def harness_folder(name: str) -> tuple[Path, str]:
    """The folder and the name of a task of lm-eval. Raises RecipeError where lm-eval or the folder is not there."""
    spec = find_spec(LM_EVAL)
    if spec is None or not spec.submodule_search_locations:
        raise RecipeError(NOT_INSTALLED)
    folder, _, task = name.rpartition("/")
    path = Path(spec.submodule_search_locations[0], "tasks", folder)
    if not folder or not path.is_dir():
        raise RecipeError(
            f"{name}: lm-eval's tasks have no folder {folder!r}; write FOLDER/TASK, such as truthfulqa/truthfulqa_mc2"
        )
    return path, task


def lacks(
    name: str, task: SuiteTask, sources: Sequence[Source], local: str | None, judge: str | None, cures: Cures
) -> Iterator[str]:
    """What this machine lacks for a task whose rows are these, `local` ones if given, each with its cure."""
    for text in _lacks(task, sources, local, judge, cures):
        yield f"{name}: {text} ({cures.skip})".replace("{name}", name)


def _lacks(task: SuiteTask, sources: Sequence[Source], local: str | None, judge: str | None, cures: Cures) -> Iterator[str]:
    from_harness = task.harness or (task.shots.harness if task.shots else None)
    if from_harness is not None:
        try:
            harness_folder(from_harness)
        except RecipeError as error:
            yield str(error)
    if task.harness is not None:
        if local is not None and not Path(local).exists():
            yield f"--data {{name}}={local}: no such file or folder"
        return
    if not sources:
        yield f"its rows must be fetched by hand ({task.obtain or 'no source is named'}); {cures.data}"
    for source in sources:
        if problem := source_problem(source.name):
            yield f"data {source.name}: {problem}"
    if task.verifier is not None:
        try:
            check_name(task.verifier)
        except RecipeError as error:
            yield str(error)
    if task.kind == "judge" and judge is None:
        yield f"needs a judge; {cures.judge}"


def recipe_lacks(section: Evaluate) -> list[str]:
    """What this machine lacks for the suite of a recipe's evaluate section."""
    if section.suite is None:
        return []
    tasks = load_suite(section.suite).chosen((), section.skip)
    if not tasks:
        return ["evaluate.skip: leaves no task of the suite; name fewer"]
    return [line for name, task in tasks.items() for line in lacks(name, task, task.data or (), None, section.judge, IN_A_RECIPE)]
