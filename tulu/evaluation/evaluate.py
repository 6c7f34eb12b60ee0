"""Evaluation: a model's answers to held-out problems, scored by the problems' verifiers, with a 95 % interval."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.job import Job
from tulu.config.locate import model_label, policy_problem
from tulu.config.lock import only_user
from tulu.config.positions import NO_LIMIT
from tulu.config.schema import Evaluate
from tulu.config.suites import load_suite
from tulu.config.tasks import TASKS
from tulu.data.chat import template_hash
from tulu.data.problems import load_problems
from tulu.errors import RecipeError, TuluError
from tulu.evaluation.best_of import best_of_figures, pick, rewards_of, show_best_of
from tulu.evaluation.candidates import SampleFile, SampleRequest, ScoredProblem, collect, model_identity
from tulu.evaluation.options import EvaluateOptions
from tulu.evaluation.positions import answer_tokens, check_prompts
from tulu.evaluation.refusals import check_evaluate
from tulu.evaluation.result_files import RESULTS, refuse_others
from tulu.evaluation.suite import run_suite
from tulu.evaluation.suite_request import SuiteRequest
from tulu.files import finite, json_lines, write_atomic
from tulu.intervals import bootstrap_mean, wilson
from tulu.model.load import checked_config, load_tokenizer
from tulu.model.positions import longest_document
from tulu.rollout.acting import Acting
from tulu.rollout.status import Status
from tulu.train.measured import measured, was_finished
from tulu.types import Problem, SamplingParams
from tulu.verifiers.contract import shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")


@dataclass(frozen=True)
class Answer:
    """The answer to one problem with its verdict: a row of answers.jsonl."""

    id: str
    prompt: str
    completion: str
    ground_truth: str
    score: float | None
    status: str
    detail: str
    finish: str


@dataclass(frozen=True)
class Result:
    """Accuracy over the problems that have a score, and how many have none."""

    task: str
    model: str
    accuracy: float
    ci95: tuple[float, float]
    problems: int
    judged: int
    """Problems whose answer the verifier could grade; results.json has it under this name."""
    statuses: dict[str, int]
    """How many answers have each status of a verdict."""
    truncated: int
    """Answers that did not stop before max_tokens."""


MAX_TOKENS = "max_tokens (--max-tokens)"
"""The field of a recipe, and the option, that says how long answers may be."""
UNPICKED = (None, "error", "the reward model could score none of the answers")
"""Score, status and detail of a problem that has no pick."""


def run(job: Job) -> Path:
    """Evaluate the newest model of a recipe; returns the folder of the result."""
    if job.start is None:
        raise RecipeError(f"recipe {job.recipe.name}: there is no model to evaluate yet")
    settings: Evaluate = job.section
    trusted = job.recipe.trust_remote_code
    answer_all(job.start, settings, job.template[0], job.folder, job.fresh, job.revision, trusted)
    if settings.suite is not None:
        evaluate_suite(job.start, settings, job.template[0], job.folder, job.fresh, job.revision, trusted)
    return job.folder


def evaluate_suite(
    model: str,
    settings: Evaluate,
    template: str,
    folder: Path,
    fresh: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Do the suite of a recipe's evaluate section; its results lie in a folder of its name below that of the evaluation."""
    assert settings.suite is not None
    suite = load_suite(settings.suite)
    run_suite(
        SuiteRequest(
            model,
            suite,
            template,
            folder / suite.name,
            settings.engine,
            judge=settings.judge,
            endpoint=settings.judge_endpoint,
            skip=settings.skip,
            limit=settings.limit,
            batch=settings.batch,
            seed=settings.seed,
            fresh=fresh,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
    )


def evaluate_model(
    model: str, options: EvaluateOptions, *, fresh: bool = False, runs: Path = Path("runs"), revision: str | None = None
) -> Result:
    """Run `tulu evaluate MODEL --task NAME`: print the result and write it to `out` (default RUNS/evaluate/MODEL/TASK).

    Raises RecipeError where options contradict each other or name something that is not there.
    """
    check_evaluate(model, options)
    best_of = options.best_of
    settings = Evaluate.model_validate({"temperature": 0.0 if best_of is None else 1.0, **options.recipe_fields()})
    name = settings.task if best_of is None else f"{settings.task}-best-of-{best_of}"
    folder = options.out or runs / "evaluate" / model_label(model) / name
    trusted = options.trust_remote_code
    return answer_all(model, settings, options.template or "tokenizer", folder, fresh, revision, trusted)


def answer_all(
    model: str,
    settings: Evaluate,
    template: str,
    folder: Path,
    fresh: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Result:
    """Sample and grade answers, and write results.json and answers.jsonl, and samples.jsonl where there are several answers.

    An evaluation that was killed goes on where it stopped; one that finished, or had other settings, starts over. Raises
    InUseError if another command is at work in the folder.
    """
    with only_user(folder, inside=True):
        if not fresh:
            refuse_others(folder, "task")
        return _answer_all(model, settings, template, folder, fresh, revision, trust_remote_code)


def _answer_all(
    model: str, settings: Evaluate, template: str, folder: Path, fresh: bool, revision: str | None, trust_remote_code: bool
) -> Result:
    if problem := policy_problem(model):
        raise RecipeError(f"{model}: {problem}")
    config = checked_config(model, trainable=False, revision=revision, trust_remote_code=trust_remote_code)
    most = longest_document(config) or NO_LIMIT
    given = settings.max_tokens if "max_tokens" in settings.model_fields_set else None
    tokens = answer_tokens(given, most, MAX_TOKENS)
    tokenizer = load_tokenizer(model, template, revision, trust_remote_code)
    with Status() as status:
        env, verifier = settings.env, settings.verifier
        acting = Acting(env, tokenizer, status, verifier) if env is not None and env.acts else None
        dataset, rests_on = task_problems(settings, tokenizer, acting)
    check_prompts(dataset, tokens, most, MAX_TOKENS)
    params = SamplingParams(tokens, settings.temperature, seed=settings.seed)
    n = settings.best_of or 1
    name = f"evaluate {settings.task}"
    picker = settings.reward_model
    request = SampleRequest(name, model, n, params, settings.engine, settings.batch, picker, revision, trust_remote_code, acting)
    weights = model_identity(model, revision, trust_remote_code)
    pinned = {**rests_on, "template": template_hash(tokenizer), "weights": weights}
    pinned |= {"env": acting.digest()} if acting else {}
    if picker is not None and picker.path is not None:
        pinned["reward_model"] = model_identity(picker.path, picker.revision, trust_remote_code)
    samples = SampleFile(folder, {**pinned, **settings.model_dump(mode="json"), "max_tokens": tokens})
    fresh = fresh or bool(samples.log.changes())
    samples.open(fresh)
    if len(samples.rows) == len(dataset) and (folder / RESULTS).exists():
        samples.open(fresh=True)
    if samples.rows:
        log.info("%s holds the answers to %d of %d problems already", samples.log.path, len(samples.rows), len(dataset))
    with measured(folder, anew=fresh or (was_finished(folder) and not samples.rows)) as meter:
        scored = collect(request, dataset, tokenizer, samples)
    picks = [0 if settings.best_of is None else pick(rewards_of(problem.answers)) for problem in scored]
    answers = [_answer(problem, index) for problem, index in zip(scored, picks, strict=True)]
    result = summarise(answers, settings.task, model)
    best_of = None if settings.best_of is None else best_of_figures(scored, settings.best_of, settings.seed)
    write_atomic(folder / "answers.jsonl", json_lines(map(asdict, answers)))
    if not result.judged:
        # What is at fault may be no setting, as a judge that is away, so that nothing of this is gone on with.
        samples.log.remove()
        cure = "mend the verifier or the rows, then run the same command again"
        raise TuluError(f"evaluate {settings.task}: {not_graded(answers)}; they are in {folder}/answers.jsonl; {cure}")
    content = {**asdict(result), "settings": settings.model_dump(mode="json"), "answer_tokens": tokens, "energy": meter.energy}
    if best_of is not None:
        content["best_of"] = finite(asdict(best_of))
    write_atomic(folder / "results.json", json.dumps(content, indent=2) + "\n")
    if best_of is None:
        # answers.jsonl holds the same.
        samples.log.remove()
    if result.judged < result.problems:
        log.warning(not_graded(answers))
    show(result, folder, settings.best_of)
    if best_of is not None:
        show_best_of(best_of)
    return result


def task_problems(
    settings: Evaluate, tokenizer: "PreTrainedTokenizerBase", acting: Acting | None = None
) -> tuple[Sequence[Problem], dict[str, Any]]:
    """The problems of a task, or of the rows that the settings name, and what they and their verdicts rest on, by content.

    Those of an environment have its tools in their prompts.
    """
    task = TASKS.get(settings.task)
    sources = settings.data or ((task.source,) if task else ())
    verifier = settings.verifier or (task.verifier if task else None)
    load = partial(
        load_problems, sources, tokenizer, NO_LIMIT, verifier=verifier, seed=settings.seed, bad_golds=settings.bad_golds
    )
    dataset = load() if acting is None else acting.load(load)
    if acting is None or not acting.scores:
        log.info(dataset.report.golds())
    for line in dataset.report.lines()[1:]:
        log.warning(line)
    rests_on = {"data": dataset.digest, **dataset.verdicts_rest_on}
    return (dataset[: settings.limit] if settings.limit else dataset), rests_on


def _answer(problem: ScoredProblem, index: int | None) -> Answer:
    """One of a problem's answers as a row of answers.jsonl; without a pick (None) the first one, as one without a score."""
    answer = problem.answers[index or 0]
    verdict = UNPICKED if index is None else (answer.score, answer.status, answer.detail)
    return Answer(problem.id, problem.messages[-1]["content"], answer.text, str(problem.ground_truth), *verdict, answer.finish)


def summarise(answers: Sequence[Answer], task: str, model: str) -> Result:
    """Accuracy with its interval; answers without a score are counted and left out of it."""
    scores = [answer.score for answer in answers if answer.score is not None]
    accuracy = sum(scores) / len(scores) if scores else float("nan")
    return Result(
        task=task,
        model=model,
        accuracy=accuracy,
        # The rewards of an environment need be no shares.
        ci95=wilson(accuracy, len(scores)) if all(0 <= score <= 1 for score in scores) else bootstrap_mean(scores),
        problems=len(answers),
        judged=len(scores),
        statuses=dict(Counter(answer.status for answer in answers)),
        truncated=sum(answer.finish == "length" for answer in answers),
    )


def not_graded(answers: Sequence[Answer]) -> str:
    """How many answers have no score, and what was mostly said of them."""
    failed = [answer for answer in answers if answer.score is None]
    (status, detail), count = Counter((answer.status, answer.detail) for answer in failed).most_common(1)[0]
    first = next(answer.id for answer in failed if (answer.status, answer.detail) == (status, detail))
    of_them = f"{count} of them with {status}: {shorten(detail, 300)} (first at {first})"
    return f"{len(failed)} of {len(answers)} answers could not be graded, {of_them}"


def show(result: Result, folder: Path, best_of: int | None = None) -> None:
    """Print the accuracy in one line, and where the rest is."""
    low, high = result.ci95
    name = result.task if best_of is None else f"{result.task}, best of {best_of}"
    text = f"{name}: {100 * result.accuracy:.1f} % right [{100 * low:.1f}, {100 * high:.1f}] of {result.judged} graded"
    if high > 1 or low < 0:
        text = f"{name}: mean reward {result.accuracy:.3g} [{low:.3g}, {high:.3g}] of {result.judged} graded"
    failed = result.problems - result.judged
    extra = [f"{failed} not graded"] if failed else []
    extra += [f"{result.truncated} did not stop"] if result.truncated else []
    print("; ".join([text, *extra]) + f"\n  {folder}/results.json, answers.jsonl")
