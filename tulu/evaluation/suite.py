"""Every task of a suite on one engine, one table, and the average as the suite's report computes it.

Everything that can be known beforehand is told at once, before the engine starts. Answers stay on the disk, so that a command
that was killed goes on where it stopped, and one that finished asks nothing again.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.lock import only_user
from tulu.config.parts import Source
from tulu.config.positions import NO_LIMIT, usual_answer
from tulu.config.suites import SuiteTask
from tulu.data.chat import template_hash
from tulu.data.problems import Problems, load_problems
from tulu.errors import DataError
from tulu.evaluation.candidates import SampleFile, SampleRequest, ScoredProblem, collect, model_identity
from tulu.evaluation.result_files import RESULTS, refuse_others
from tulu.evaluation.shared_engine import SharedEngine
from tulu.evaluation.suite_request import SuiteRequest, check
from tulu.evaluation.suite_rows import GROUP, write_rows
from tulu.evaluation.suite_scores import TaskScore, average, average_note, score_of, value_of, with_groups
from tulu.evaluation.suite_table import show_suite
from tulu.files import finite, write_atomic
from tulu.model.generation import turn_end_tokens
from tulu.model.load import checked_config, load_tokenizer
from tulu.model.positions import longest_document
from tulu.reward_models.options import RewardBenchOptions
from tulu.rollout.engine import EngineSpec
from tulu.train.manifest import environment
from tulu.types import Problem, SamplingParams
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")


@dataclass(frozen=True)
class Asked:
    """A task whose rows are read: what will be asked, and what could not be."""

    name: str
    task: SuiteTask
    folder: Path
    params: SamplingParams
    problems: Sequence[Problem]
    digest: str
    left_out: int
    notes: tuple[str, ...]


def run_suite(request: SuiteRequest) -> dict[str, TaskScore]:
    """Do the tasks, write results.json and print the table; returns the scores. Raises RecipeError for all mistakes at once."""
    check(request)
    with only_user(request.folder, inside=True):
        if not request.fresh:
            refuse_others(request.folder, "suite")
        return _run(request)


def _run(request: SuiteRequest) -> dict[str, TaskScore]:
    trusted = request.trust_remote_code
    config = checked_config(request.model, trainable=False, revision=request.revision, trust_remote_code=trusted)
    tokenizer = load_tokenizer(request.model, request.template, request.revision, trusted)
    most = longest_document(config) or NO_LIMIT
    weights = model_identity(request.model, request.revision, trusted)
    pinned = {"weights": weights, "template": template_hash(tokenizer), "seed": request.seed}
    asked = _ask_all(request, tokenizer, most)
    harnessed = {name: task for name, task in request.chosen.items() if task.kind == "harness"}
    loaded = {name: _load_harness(request, name, task) for name, task in harnessed.items()}
    needs = [max(len(problem.prompt) for problem in one.problems) + one.params.max_tokens for one in asked.values()]
    # lm-eval's prompts are not known before it runs.
    length = most if harnessed and most < NO_LIMIT else max(needs, default=0) if not harnessed else max([8192, *needs])
    spec = EngineSpec(
        request.model,
        length,
        "fp32",
        version=0,
        revision=request.revision,
        trust_remote_code=trusted,
        turn_ends=turn_end_tokens(tokenizer),
    )
    scores: dict[str, TaskScore] = {}
    answers: dict[str, list[ScoredProblem]] = {}
    with closing(SharedEngine(request.engine, spec, request.template)) as engine:
        for name, one in asked.items():
            answers[name] = _answers(request, one, tokenizer, engine, pinned)
            if one.task.kind == "verifier":
                scores[name] = _scored(one, answers[name], request.seed)
        # Log-probs come last: they take the policy in the engine's place.
        for name, task in sorted(harnessed.items(), key=lambda item: _needs_policy(loaded[item[0]])):
            scores[name] = _by_harness(request, name, task, loaded[name], engine, tokenizer, pinned)
    for name, one in asked.items():
        if one.task.kind == "judge":
            scores[name] = _judged(request, one, answers[name], pinned)
    ordered = with_groups(request.suite, {name: scores[name] for name in request.chosen})
    _write(request, ordered, weights)
    return ordered


def _ask_all(request: SuiteRequest, tokenizer: "PreTrainedTokenizerBase", most: int) -> dict[str, Asked]:
    """Read the rows of every task. Raises one DataError that names each task whose rows cannot be had, and its cures."""
    asked, faults = {}, []
    for name, task in request.chosen.items():
        if task.kind == "harness":
            continue
        try:
            asked[name] = _ask(request, name, tokenizer, most)
        except DataError as error:
            faults.append(f"{name}: {error}")
    if faults:
        cure = "Mend what is named, give --data TASK=FILE, or leave the task out: --skip TASK (evaluate.skip in a recipe)."
        cure = "Mend what is named, or give other rows by --data." if request.alone else cure
        raise DataError("\n".join([*faults, cure]))
    return asked


def _ask(request: SuiteRequest, name: str, tokenizer: "PreTrainedTokenizerBase", most: int) -> Asked:
    """Read a task's rows. An answer never takes more than half of a model's positions."""
    task, folder = request.task(name), request.folder / name
    file = write_rows(task, request.sources(name), folder, request.seed, request.limit)
    tokens = usual_answer(task.max_tokens, most)
    notes = [] if tokens == task.max_tokens else [f"answers of at most {tokens} tokens: the model has {most} positions"]
    notes += [] if request.limit is None else [f"the first {request.limit} rows only"]
    rows = sum(1 for _ in file.open(encoding="utf-8"))
    if request.limit is None and task.problems not in (None, rows):
        notes.append(f"{rows} rows, where the original has {task.problems}: the figure is not comparable")
    verifier = task.verifier or REWARD_MODEL
    # Without a verifier, nothing is graded as the answers come.
    problems: Problems = load_problems(
        [Source(name=str(file), fraction=1.0)], tokenizer, most - tokens, verifier, request.seed, task.verifier is None, "skip"
    )
    left_out = rows - len(problems)
    params = SamplingParams(tokens, task.temperature, task.top_p, task.stop, request.seed)
    return Asked(name, task, folder, params, problems, problems.digest, left_out, tuple(notes))


def _answers(
    request: SuiteRequest,
    asked: Asked,
    tokenizer: "PreTrainedTokenizerBase",
    engine: SharedEngine,
    pinned: Mapping[str, Any],
) -> list[ScoredProblem]:
    params = asdict(asked.params)
    samples = SampleFile(asked.folder, {**pinned, "data": asked.digest, "n": asked.task.samples, "params": params})
    samples.open(request.fresh or bool(samples.log.changes()))
    if samples.rows:
        log.info("%s holds the answers to %d of %d problems already", samples.log.path, len(samples.rows), len(asked.problems))
    wanted = SampleRequest(
        asked.name,
        request.model,
        asked.task.samples,
        asked.params,
        request.engine,
        request.batch,
        revision=request.revision,
        trust_remote_code=request.trust_remote_code,
    )
    return collect(wanted, asked.problems, tokenizer, samples, engine)


def _scored(asked: Asked, answers: Sequence[ScoredProblem], seed: int) -> TaskScore:
    """The score of a task with a verifier."""
    groups = {problem.id: str(problem.row.get(GROUP, "")) for problem in asked.problems}
    others = [f"pass@{k}" for k in (1, 10) if 1 < asked.task.samples >= k]
    metrics = [asked.task.metric, *(name for name in others if name != asked.task.metric)]
    results = {}
    for metric in metrics:
        value = value_of(metric)
        pairs = [(groups[problem.id], found) for problem in answers if (found := value(problem)) is not None]
        results[metric] = (*score_of(pairs, seed), len(pairs))
    score, interval, scored = results[asked.task.metric]
    further = {metric: results[metric][0] for metric in metrics[1:]}
    return _score(asked, answers, score, interval, scored, further)


def _score(
    asked: Asked,
    answers: Sequence[ScoredProblem],
    score: float,
    interval: tuple[float, float],
    scored: int,
    further: Mapping[str, float],
) -> TaskScore:
    truncated = sum(answer.finish == "length" for problem in answers for answer in problem.answers)
    task = asked.task
    return TaskScore(
        asked.name,
        task.title,
        task.metric,
        task.better,
        score,
        interval,
        len(answers),
        scored,
        asked.left_out,
        truncated,
        further,
        asked.notes,
        task.differs,
    )


def _needs_policy(tasks: Sequence[Any]) -> bool:
    """Whether a task of lm-eval asks for log-probs."""
    return any(task.OUTPUT_TYPE == "multiple_choice" for task in tasks)


def _load_harness(request: SuiteRequest, name: str, task: SuiteTask) -> list[Any]:
    from tulu.evaluation.harness import load_tasks

    local = request.data.get(name)
    return load_tasks(task, None if local is None else Path(local))


def _by_harness(
    request: SuiteRequest,
    name: str,
    task: SuiteTask,
    loaded: list[Any],
    engine: SharedEngine,
    tokenizer: "PreTrainedTokenizerBase",
    pinned: Mapping[str, Any],
) -> TaskScore:
    from tulu.evaluation.harness import HarnessModel, answer_tasks, cache_of

    model = HarnessModel(engine, tokenizer, name, task.max_tokens, task.chat)
    settings = {**pinned, "max_tokens": task.max_tokens, "max_length": model.max_length, "chat": task.chat}
    cache = cache_of(request.folder / name, settings, request.fresh)
    values = answer_tasks(model, loaded, task, cache, request.limit)
    pairs = [(group if task.mean_over == "task" else "", value) for group, _, value in values]
    score, interval = score_of(pairs, request.seed)
    rows = [{"task": group, "id": row, "value": value} for group, row, value in values]
    write_atomic(request.folder / name / "values.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    notes = () if request.limit is None else (f"the first {request.limit} rows of each task only",)
    counts = (len(pairs), len(pairs), 0, model.cut)
    return TaskScore(name, task.title, task.metric, task.better, score, interval, *counts, {}, notes, task.differs)


def _judged(request: SuiteRequest, asked: Asked, answers: Sequence[ScoredProblem], pinned: Mapping[str, Any]) -> TaskScore:
    """The win rate of a task with a judge. The judge is started after the model has answered, so that both never share a GPU."""
    from tulu.evaluation.judged import compare, length_controlled
    from tulu.reward_models.judging import JudgeScorer
    from tulu.reward_models.responders import EndpointJudge, LocalJudge

    assert request.judge is not None
    trusted = request.trust_remote_code
    options = RewardBenchOptions(both_orders=True, judge_mode="pairwise", engine=request.engine, trust_remote_code=trusted)
    responder = (
        LocalJudge(request.judge, options)
        if request.endpoint is None
        else EndpointJudge(request.endpoint, request.judge, options.api_key_env)
    )
    settings = {**pinned, "data": asked.digest, "judge": request.judge, "params": asdict(asked.params)}
    with closing(JudgeScorer(responder, "free", options)) as judge:
        wins = compare(answers, judge, asked.folder, settings, request.fresh)
    judged = [problem for problem in answers if problem.id in wins]
    plain = score_of([("", wins[problem.id]) for problem in judged], request.seed)
    lengths = [(len(problem.answers[0].text), len(str(problem.ground_truth))) for problem in judged]
    controlled = length_controlled([wins[problem.id] for problem in judged], lengths, request.seed)
    chosen, other = (plain, controlled) if asked.task.metric == "win_rate" else (controlled, plain)
    name = "length_controlled_win_rate" if asked.task.metric == "win_rate" else "win_rate"
    return _score(asked, answers, *chosen, len(judged), {name: other[0]})


def _write(request: SuiteRequest, scores: Mapping[str, TaskScore], weights: str) -> None:
    mean, interval, lacking = average(request.suite, scores)
    content = {
        "suite": request.suite.name,
        "model": request.model,
        "weights": weights,
        "average": mean,
        "ci95": interval,
        "counted": list(request.suite.counted),
        "lacking": lacking,
        "average_note": average_note(request.suite, lacking, request.limit),
        "tasks_of_the_report": len(request.suite.counted) + len(request.suite.left_out),
        "limit": request.limit,
        "tasks": {name: asdict(score) for name, score in scores.items()},
        "left_out": request.suite.left_out,
        "settings": request.suite.model_dump(mode="json"),
        "environment": environment(),
    }
    write_atomic(request.folder / RESULTS, json.dumps(finite(content), indent=2, default=str) + "\n")
    show_suite(request.suite, scores, f"{request.folder / RESULTS}, and a folder for each task", request.limit)
