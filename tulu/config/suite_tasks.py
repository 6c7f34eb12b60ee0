"""Tasks of the package's suites that are named alone, as in `tulu evaluate MODEL --task mbpp`."""

from collections.abc import Mapping
from functools import cache

from tulu.config.suites import PASS_AT, Suite, SuiteTask, built_in_suites, load_suite
from tulu.config.tasks import TASKS
from tulu.config.yaml_text import read_yaml
from tulu.errors import RecipeError


@cache
def suite_tasks() -> Mapping[str, str]:
    """The tasks that the task table has not, each with the built-in suite that says how it is done."""
    found: dict[str, str] = {}
    for suite, file in built_in_suites().items():
        for name, task in (read_yaml(file).value.get("tasks") or {}).items():
            if "from" not in task and name not in TASKS:
                found.setdefault(name, suite)
    return found


def alone(name: str, max_tokens: int | None = None, temperature: float | None = None) -> Suite:
    """A suite of one built-in task, with the numbers that were given in place of its own.

    Raises RecipeError where it cannot be done with them.
    """
    origin = suite_tasks()[name]
    task = load_suite(origin).tasks[name]
    given: dict[str, int | float] = {} if max_tokens is None else {"max_tokens": max_tokens}
    if temperature is not None:
        given |= {"temperature": temperature, **_greedy(name, task, temperature)}
    return Suite(name=name, about=f"{task.title}, a task of {origin}", tasks={name: task.model_copy(update=given)})


def _greedy(name: str, task: SuiteTask, temperature: float) -> dict[str, int]:
    """At temperature 0 all answers are the same, so one is enough."""
    if task.kind == "harness":
        raise RecipeError(f"--temperature: lm-eval's task {name} says this itself; leave it out")
    if temperature > 0:
        return {}
    if (match := PASS_AT.fullmatch(task.metric)) and int(match[1]) > 1:
        raise RecipeError(f"--temperature 0: all answers would be the same, and {task.metric} needs several; raise it")
    return {"samples": 1}
