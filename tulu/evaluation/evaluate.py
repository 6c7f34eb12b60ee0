"""Evaluation: answers on held-out problems, scored by their verifier, with a 95 % interval."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.load import Job, section_of
from tulu.config.locate import judge_problem, model_label, policy_problem
from tulu.config.schema import Evaluate, Source
from tulu.data.chat import template_hash
from tulu.data.problems import problems
from tulu.errors import RecipeError
from tulu.evaluation.best_of import BestOf, best_of_figures, finite, pick, show_best_of
from tulu.evaluation.candidates import Candidates, Request, Samples, collect, model_identity
from tulu.files import write_atomic
from tulu.intervals import wilson
from tulu.model.load import load_tokenizer
from tulu.types import Problem, SamplingParams
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

TASKS: dict[str, tuple[Source, str | None]] = {
    "gsm8k": (Source(name="openai/gsm8k", subset="main", split="test", fraction=1.0), "gsm8k"),
    "math": (Source(name="HuggingFaceH4/MATH-500", split="test", fraction=1.0), "math"),
    "sums": (Source(name="sums:held_out", count=500), None),
}
"""Rows and verifier of the tasks that need no data of one's own; None takes each row's verifier."""


@dataclass(frozen=True)
class Answer:
    """One problem, what the model answered, and what the verifier said."""

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
    """Accuracy over the problems that could be judged, and what the others were."""

    task: str
    model: str
    accuracy: float
    ci95: tuple[float, float]
    problems: int
    judged: int
    statuses: dict[str, int]
    truncated: int


UNPICKED: dict[str, Any] = {"score": None, "status": "error", "detail": "the reward model could score none of the answers"}


def run(job: Job) -> Path:
    """Evaluate the newest model of a recipe; returns the folder of the results."""
    if job.start is None:
        raise RecipeError(f"recipe {job.recipe.name}: there is no model to evaluate yet")
    settings: Evaluate = section_of(job.recipe, "evaluate")
    answer_all(job.start, settings, job.recipe.template, job.folder, job.fresh)
    return job.folder


def evaluate_model(
    model: str,
    task: str,
    data: str | None = None,
    *,
    template: str = "tokenizer",
    verifier: str | None = None,
    limit: int | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    best_of: int | None = None,
    reward_model: str | None = None,
    out: Path | None = None,
    fresh: bool = False,
    runs: Path = Path("runs"),
) -> Result:
    """`tulu evaluate MODEL --task NAME`: print the result and write it to `out` (default RUNS/evaluate/MODEL/TASK)."""
    if data is None and task not in TASKS:
        raise RecipeError(f"--task {task}: has no data of its own; known are {', '.join(TASKS)}, or give --data FILE")
    if (best_of is None) != (reward_model is None):
        lacking, given = ("--reward-model RM", "--best-of") if reward_model is None else ("--best-of N", "--reward-model")
        raise RecipeError(f"{given} needs {lacking}: the reward model picks one of N answers")
    if best_of is not None and temperature == 0:
        raise RecipeError(f"--temperature 0: all {best_of} answers would be the same; leave it out (1.0), or raise it")
    if verifier is not None and verifier.lower() == REWARD_MODEL:
        raise RecipeError("--verifier reward_model: it cannot say which answers are right; use --best-of N --reward-model RM")
    if reward_model is not None and (problem := judge_problem(reward_model)):
        raise RecipeError(f"--reward-model {reward_model}: {problem}")
    if temperature is None:
        temperature = 0.0 if best_of is None else 1.0
    fields = {"data": data, "verifier": verifier, "limit": limit, "max_tokens": max_tokens, "temperature": temperature}
    given_fields = {**fields, "best_of": best_of, "reward_model": reward_model}
    settings = Evaluate.model_validate({"task": task, **{key: value for key, value in given_fields.items() if value is not None}})
    name = task if best_of is None else f"{task}-best-of-{best_of}"
    folder = out or runs / "evaluate" / model_label(model) / name
    return answer_all(model, settings, template, folder, fresh)


def answer_all(model: str, settings: Evaluate, template: str, folder: Path, fresh: bool = False) -> Result:
    """Load, sample, grade, and write results.json and answers.jsonl (of several answers, also samples.jsonl).

    An evaluation that was killed goes on where it stopped; one that finished, or had other settings, starts over.
    """
    if problem := policy_problem(model):
        raise RecipeError(f"{model} {problem}")
    tokenizer = load_tokenizer(model, template)
    asked, digest = task_problems(settings, tokenizer)
    params = SamplingParams(settings.max_tokens, settings.temperature, seed=settings.seed)
    n = settings.best_of or 1
    request = Request(f"evaluate {settings.task}", model, n, params, settings.engine, settings.batch, settings.reward_model)
    pinned = {"data": digest, "template": template_hash(tokenizer), "weights": model_identity(model)}
    if settings.reward_model is not None and settings.reward_model.path is not None:
        pinned["reward_model"] = model_identity(settings.reward_model.path, settings.reward_model.revision)
    samples = Samples(folder / "samples.jsonl", {**pinned, **settings.model_dump(mode="json")})
    if samples.open(fresh) or (len(samples.rows) == len(asked) and (folder / "results.json").exists()):
        samples.open(fresh=True)
    if samples.rows:
        log.info("%s holds the answers to %d of %d problems already", samples.file, len(samples.rows), len(asked))
    found = collect(request, asked, tokenizer, samples)
    result, answers, picked = summarise_all(found, settings, model)
    write_atomic(folder / "answers.jsonl", "".join(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers))
    content = {**asdict(result), "settings": settings.model_dump(mode="json")}
    if picked is not None:
        content["best_of"] = finite(asdict(picked))
    write_atomic(folder / "results.json", json.dumps(content, indent=2) + "\n")
    if picked is None:
        # answers.jsonl holds all of it.
        samples.remove()
    show(result, folder, settings.best_of)
    if picked is not None:
        show_best_of(picked)
    return result


def task_problems(settings: Evaluate, tokenizer: "PreTrainedTokenizerBase") -> tuple[Sequence[Problem], str]:
    """The problems of a task, or of the rows that the settings name, and a hash of them."""
    own_data, own_verifier = TASKS.get(settings.task, (None, None))
    sources = settings.data or ((own_data,) if own_data else ())
    asked = problems(sources, tokenizer, max_prompt=1 << 20, verifier=settings.verifier or own_verifier, seed=settings.seed)
    for line in asked.report.lines()[1:]:
        log.warning(line)
    return (asked[: settings.limit] if settings.limit else asked), asked.digest


def summarise_all(found: Sequence[Candidates], settings: Evaluate, model: str) -> tuple[Result, list[Answer], BestOf | None]:
    """The result, each problem's answer (of several, the reward model's pick), and the figures of best-of-N."""
    if settings.best_of is None:
        answers = [_answer(each, 0) for each in found]
        return summarise(answers, settings.task, model), answers, None
    places = [pick(each.answers) for each in found]
    # Where no answer has a reward there is no pick: the problem counts as not judged, with the first answer to show.
    answers = [
        replace(_answer(each, place or 0), **({} if place is not None else UNPICKED))
        for each, place in zip(found, places, strict=True)
    ]
    return summarise(answers, settings.task, model), answers, best_of_figures(found, settings.best_of, settings.seed)


def _answer(each: Candidates, place: int) -> Answer:
    said = each.answers[place]
    prompt = each.messages[-1]["content"]
    return Answer(each.id, prompt, said.text, str(each.ground_truth), said.score, said.status, said.detail, said.finish)


def summarise(answers: Sequence[Answer], task: str, model: str) -> Result:
    """Accuracy with its interval; answers that could not be judged are counted, not scored."""
    scores = [answer.score for answer in answers if answer.score is not None]
    accuracy = sum(scores) / len(scores) if scores else float("nan")
    return Result(
        task=task,
        model=model,
        accuracy=accuracy,
        ci95=wilson(accuracy, len(scores)),
        problems=len(answers),
        judged=len(scores),
        statuses=dict(Counter(answer.status for answer in answers)),
        truncated=sum(answer.finish == "length" for answer in answers),
    )


def show(result: Result, folder: Path, best_of: int | None = None) -> None:
    """One line a person can read, and where the rest is."""
    low, high = result.ci95
    name = result.task if best_of is None else f"{result.task}, best of {best_of}"
    text = f"{name}: {100 * result.accuracy:.1f} % right [{100 * low:.1f}, {100 * high:.1f}] of {result.judged} judged"
    failed = result.problems - result.judged
    extra = [f"{failed} not judged"] if failed else []
    extra += [f"{result.truncated} did not stop"] if result.truncated else []
    print("; ".join([text, *extra]) + f"\n  {folder}/results.json, answers.jsonl")
