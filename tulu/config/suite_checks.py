"""Mistakes in what a recipe's evaluate section says of a suite."""

from collections.abc import Iterator

from tulu.config.mistakes import Mistake
from tulu.config.suites import load_suite
from tulu.config.values import Values
from tulu.errors import RecipeError, nearest


def evaluated_suite(stage: Values) -> Iterator[Mistake]:
    """The suite exists and is right by itself, and what stands beside it belongs to it."""
    if stage.suite is None:
        for field in ("skip", "judge", "judge_endpoint"):
            if stage.fields.get(field):
                yield stage.mistake(field, "belongs to a suite; set evaluate.suite, or remove it", stage.fields[field])
        return
    try:
        suite = load_suite(stage.suite)
    except RecipeError as error:
        yield stage.mistake("suite", str(error).removeprefix("--suite "))
        return
    known = [*suite.tasks, *suite.groups]
    for name in (name for name in stage.skip if name not in known):
        yield stage.mistake("skip", f"{suite.name} has no task {name}{nearest(name, known)}; it has {', '.join(known)}", name)
    if stage.judge_endpoint is not None and stage.judge is None:
        yield stage.mistake("judge_endpoint", "needs evaluate.judge, the name under which the judge is served there")
