"""`tulu evaluate MODEL`: one task, several, or a suite; what it names may be a run or a built-in recipe too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tulu.config.locate import model_label, source_problem
from tulu.config.named_models import Named, naming
from tulu.config.parts import Source
from tulu.config.suite_tasks import alone, suite_tasks
from tulu.config.suites import Suite, SuiteTask, load_suite
from tulu.errors import RecipeError
from tulu.evaluation.options import EvaluateOptions
from tulu.evaluation.refusals import check_evaluate, check_template

if TYPE_CHECKING:
    from tulu.evaluation.evaluate import Result
    from tulu.evaluation.suite_request import SuiteRequest
    from tulu.evaluation.suite_scores import TaskScore


def evaluate_named(name: str, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    """Evaluate the model that a name stands for. Raises RecipeError where options contradict each other."""
    if options.suite is None:
        _refuse(options, ("skip",), "belongs to --suite")
    if options.suite is None and not options.task:
        raise RecipeError(
            "tulu evaluate MODEL needs --task NAME (gsm8k, math, sums, or any name together with --data FILE), or --suite NAME; "
            "--task takes a suite's task too, such as mbpp"
        )
    do = _evaluate_tasks if options.suite is None else _evaluate_suite
    with naming(name, runs) as named:
        do(named, replace(options, template=options.template or named.template), fresh=fresh, runs=runs)


_OF_ONE_TASK = ("verifier", "env", "bad_golds", "best_of", "reward_model")
"""Options that a suite has no place for."""
_SAID = "a suite says this of each task; leave it out, or write a suite of your own (docs/evaluation.md)"


def _refuse(options: EvaluateOptions, fields: Sequence[str], why: str) -> None:
    given = [f"--{field.replace('_', '-')}" for field in fields if getattr(options, field)]
    if given:
        raise RecipeError(f"{' and '.join(given)}: {why}")


def _evaluate_suite(named: Named, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    _refuse(options, (*_OF_ONE_TASK, "max_tokens", "temperature"), _SAID)
    assert options.suite is not None
    request = _suite_request(named, load_suite(options.suite), options, by_task(options.data), fresh, runs)
    from tulu.evaluation.suite import run_suite

    run_suite(request)


def _suite_request(
    named: Named, suite: Suite, options: EvaluateOptions, data: Mapping[str, str], fresh: bool, runs: Path
) -> "SuiteRequest":
    """What is asked for, once nothing is found to be missing."""
    if options.judge_endpoint and not options.judge:
        raise RecipeError("--judge-endpoint needs --judge MODEL, the name under which the judge is served there")
    check_template(options.template)
    from tulu.evaluation.suite_request import SuiteRequest, check

    request = SuiteRequest(
        named.model,
        suite,
        options.template or "tokenizer",
        options.out or runs / "evaluate" / model_label(named.model) / suite.name,
        options.engine or "auto",
        options.task,
        options.skip,
        data,
        options.limit,
        options.judge,
        options.judge_endpoint,
        fresh=fresh,
        revision=named.revision,
        trust_remote_code=options.trust_remote_code,
        alone=options.suite is None,
    )
    check(request)
    return request


def by_task(given: Sequence[str]) -> dict[str, str]:
    """`TASK=PATH` of each --data. Raises RecipeError for anything else."""
    pairs = [text.partition("=") for text in given]
    if wrong := next(
        (text for text, (task, equals, path) in zip(given, pairs, strict=True) if not (equals and task and path)), None
    ):
        raise RecipeError(f"--data {wrong}: with several tasks, write --data TASK=FILE")
    return {task: path for task, _, path in pairs}


def _evaluate_tasks(named: Named, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    several = len(options.task) > 1
    if repeated := next((task for task in options.task if options.task.count(task) > 1), None):
        raise RecipeError(f"--task {repeated}: given twice; give it once")
    single = [_one(options, task) for task in options.task]
    if several and (stray := next((task for task in by_task(options.data) if task not in options.task), None)):
        raise RecipeError(f"--data {stray}: no such --task; it is one of {', '.join(options.task)}")
    if (options.judge or options.judge_endpoint) and not any(map(_is_of_a_suite, single)):
        _refuse(options, ("judge", "judge_endpoint"), "belongs to --suite")
    do = [_doing(named, one, fresh, runs) for one in single]
    scores = [one() for one in do]
    if several:
        _show(scores, options.out or runs / "evaluate" / model_label(named.model))


def _one(options: EvaluateOptions, task: str) -> EvaluateOptions:
    """The options of one of the tasks."""
    if len(options.task) == 1:
        return replace(options, data=tuple(text.removeprefix(f"{task}=") for text in options.data))
    data = by_task(options.data)
    out = None if options.out is None else options.out / task
    return replace(options, task=(task,), data=(data[task],) if task in data else (), out=out)


def _is_of_a_suite(options: EvaluateOptions) -> bool:
    """Whether a task is done as a suite says: rows that have a ground truth are problems of one's own under its name."""
    if options.task[0] not in suite_tasks() or options.verifier is not None:
        return False
    if len(options.data) != 1 or source_problem(options.data[0]):
        return not options.data
    from tulu.data.sources import load_rows

    rows = load_rows(Source(name=options.data[0], fraction=1.0))
    return not (len(rows) and "ground_truth" in rows[0].columns)


def _doing(named: Named, options: EvaluateOptions, fresh: bool, runs: Path) -> Callable[[], "TaskScore"]:
    """What does a task, once everything that can be known beforehand is checked. Raises RecipeError."""
    task = options.task[0]
    if _is_of_a_suite(options):
        _refuse(options, _OF_ONE_TASK, f"{task} is a task of suite {suite_tasks()[task]}, which says this; leave it out")
        suite = alone(task, options.max_tokens, options.temperature)
        data = {task: options.data[0]} if options.data else {}
        request = _suite_request(named, suite, options, data, fresh, runs)

        def as_suite() -> "TaskScore":
            from tulu.evaluation.suite import run_suite

            return run_suite(request)[task]

        return as_suite
    check_evaluate(named.model, options)

    def by_itself() -> "TaskScore":
        from tulu.evaluation.evaluate import evaluate_model

        return _as_score(evaluate_model(named.model, options, fresh=fresh, runs=runs, revision=named.revision))

    return by_itself


def _as_score(result: "Result") -> "TaskScore":
    from tulu.evaluation.suite_scores import TaskScore

    counts = (result.problems, result.judged)
    return TaskScore(
        result.task, result.task, "accuracy", "higher", result.accuracy, result.ci95, *counts, truncated=result.truncated
    )


def _show(scores: Sequence["TaskScore"], folder: Path) -> None:
    """The results of several tasks as one table."""
    from tulu.evaluation.suite_table import show_suite

    tasks = {score.name: SuiteTask(title=score.title) for score in scores}
    suite = Suite(name="tasks", about="tasks of the command line", tasks=tasks)
    show_suite(suite, {score.name: score for score in scores}, f"{folder}: a folder for each task")
