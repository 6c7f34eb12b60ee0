"""`tulu evaluate MODEL`: one task, several, or a suite; what it names may be a run or a built-in recipe too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tulu.config.locate import model_label
from tulu.config.named_models import Named, naming
from tulu.config.options import USUAL_BATCH
from tulu.config.suites import Suite, SuiteTask, load_suite
from tulu.config.tasks import TASKS
from tulu.config.vllm_import import need_engine
from tulu.errors import RecipeError
from tulu.evaluation.options import EvaluateOptions
from tulu.evaluation.refusals import check_evaluate, check_template

if TYPE_CHECKING:
    from tulu.evaluation.evaluate import Result


def evaluate_named(name: str, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    """Evaluate the model that a name stands for. Raises RecipeError where options contradict each other."""
    if options.suite is None:
        _refuse(options, ("skip", "judge", "judge_endpoint"), "belongs to --suite")
    if options.suite is None and not options.task:
        raise RecipeError(
            "tulu evaluate MODEL needs --task NAME (gsm8k, math, sums, or any name together with --data FILE), or --suite NAME"
        )
    do = _evaluate_tasks if options.suite is None else _evaluate_suite
    with naming(name, runs) as named:
        do(named, replace(options, template=options.template or named.template), fresh=fresh, runs=runs)


def _refuse(options: EvaluateOptions, fields: Sequence[str], why: str) -> None:
    given = [f"--{field.replace('_', '-')}" for field in fields if getattr(options, field)]
    if given:
        raise RecipeError(f"{' and '.join(given)}: {why}")


def _evaluate_suite(named: Named, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    own = ("verifier", "env", "bad_golds", "max_tokens", "temperature", "best_of", "reward_model")
    _refuse(options, own, "a suite says this of each task; leave it out, or write a suite of your own (docs/evaluation.md)")
    assert options.suite is not None
    suite = load_suite(options.suite)
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
        by_task(options.data),
        options.limit,
        options.judge,
        options.judge_endpoint,
        options.batch or USUAL_BATCH,
        fresh=fresh,
        revision=named.revision,
        trust_remote_code=options.trust_remote_code,
    )
    check(request)
    need_engine(request.engine)
    from tulu.evaluation.suite import run_suite

    run_suite(request)


def by_task(given: Sequence[str]) -> dict[str, str]:
    """`TASK=PATH` of each --data. Raises RecipeError for anything else."""
    pairs = [text.partition("=") for text in given]
    if wrong := next(
        (text for text, (task, equals, path) in zip(given, pairs, strict=True) if not (equals and task and path)), None
    ):
        raise RecipeError(f"--data {wrong}: with several tasks, write --data TASK=FILE")
    return {task: path for task, _, path in pairs}


def _evaluate_tasks(named: Named, options: EvaluateOptions, *, fresh: bool, runs: Path) -> None:
    if len(options.task) == 1:
        check_evaluate(named.model, options)
        need_engine(options.engine)
        from tulu.evaluation.evaluate import evaluate_model

        evaluate_model(named.model, options, fresh=fresh, runs=runs, revision=named.revision)
        return
    if repeated := next((task for task in options.task if options.task.count(task) > 1), None):
        raise RecipeError(f"--task {repeated}: given twice; give it once")
    data = by_task(options.data)
    if stray := next((task for task in data if task not in options.task), None):
        raise RecipeError(f"--data {stray}: no such --task; it is one of {', '.join(options.task)}")
    single = [
        replace(
            options,
            task=(task,),
            data=(data[task],) if task in data else (),
            out=None if options.out is None else options.out / task,
        )
        for task in options.task
    ]
    for one in single:
        check_evaluate(named.model, one)
    need_engine(options.engine)
    from tulu.evaluation.evaluate import evaluate_model

    results = [evaluate_model(named.model, one, fresh=fresh, runs=runs, revision=named.revision) for one in single]
    _show(results, options.out or runs / "evaluate" / model_label(named.model))


def _show(results: Sequence["Result"], folder: Path) -> None:
    """The results of several tasks as one table."""
    from tulu.evaluation.suite_scores import TaskScore
    from tulu.evaluation.suite_table import show_suite

    scores = {
        result.task: TaskScore(
            result.task,
            result.task,
            "accuracy",
            "higher",
            result.accuracy,
            result.ci95,
            result.problems,
            result.judged,
            truncated=result.truncated,
        )
        for result in results
    }
    tasks = {name: SuiteTask(title=name, verifier=TASKS[name].verifier if name in TASKS else None) for name in scores}
    show_suite(Suite(name="tasks", about="tasks of the command line", tasks=tasks), scores, f"{folder}: a folder for each task")
