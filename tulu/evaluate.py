"""Evaluation: answers on held-out problems, scored by their verifier, with a 95 % interval."""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tulu.data import problems
from tulu.errors import RecipeError
from tulu.files import write_atomic
from tulu.grading import Grader
from tulu.policy import load_tokenizer
from tulu.progress import Progress
from tulu.recipe import Evaluate, Source
from tulu.resolve import Job, section_of
from tulu.rollout.engine import EngineSpec, RolloutEngine, make_engine
from tulu.types import Problem, SamplingParams

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


def run(job: Job) -> Path:
    """Evaluate the newest model of a recipe; returns the folder of the results."""
    if job.start is None:
        raise RecipeError(f"recipe {job.recipe.name}: there is no model to evaluate yet")
    settings: Evaluate = section_of(job.recipe, "evaluate")
    answer_all(job.start, settings, job.recipe.template, job.folder)
    return job.folder


def evaluate_model(
    model: str,
    task: str,
    data: str | None = None,
    *,
    template: str = "tokenizer",
    verifier: str | None = None,
    limit: int | None = None,
    max_tokens: int = 512,
    temperature: float = 0.0,
    out: Path | None = None,
) -> Result:
    """`tulu evaluate MODEL --task NAME`: print the result and write it to `out` (default runs/evaluate/MODEL/TASK)."""
    if data is None and task not in TASKS:
        raise RecipeError(f"--task {task}: has no data of its own; known are {', '.join(TASKS)}, or give --data FILE")
    fields = {"verifier": verifier, "limit": limit, "max_tokens": max_tokens, "temperature": temperature}
    settings = Evaluate(task=task, data=data, **fields)  # type: ignore[arg-type]
    folder = out or Path("runs") / "evaluate" / model.strip("/").replace("/", "-") / task
    return answer_all(model, settings, template, folder)


def answer_all(model: str, settings: Evaluate, template: str, folder: Path) -> Result:
    """Load, sample, grade, and write results.json and answers.jsonl."""
    tokenizer = load_tokenizer(model, template)
    asked = task_problems(settings, tokenizer)
    longest = max(len(problem.prompt) for problem in asked)
    spec = EngineSpec(model, longest + settings.max_tokens, "fp32", version=0)
    engine = make_engine(settings.engine, spec)
    try:
        answers = sample_and_grade(engine, asked, tokenizer, settings)
    finally:
        engine.close()
    result = summarise(answers, settings.task, model)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "answers.jsonl", "".join(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in answers))
    content = {**asdict(result), "settings": settings.model_dump(mode="json")}
    write_atomic(folder / "results.json", json.dumps(content, indent=2) + "\n")
    show(result, folder)
    return result


def task_problems(settings: Evaluate, tokenizer: "PreTrainedTokenizerBase") -> Sequence[Problem]:
    """The problems of a task, or of the rows that the settings name."""
    own_data, own_verifier = TASKS.get(settings.task, (None, None))
    sources = settings.data or ((own_data,) if own_data else ())
    asked = problems(sources, tokenizer, max_prompt=1 << 20, verifier=settings.verifier or own_verifier, seed=settings.seed)
    for line in asked.report.lines()[1:]:
        log.warning(line)
    return asked[: settings.limit] if settings.limit else asked


def sample_and_grade(
    engine: RolloutEngine, asked: Sequence[Problem], tokenizer: "PreTrainedTokenizerBase", settings: Evaluate
) -> list[Answer]:
    """One answer per problem, in order."""
    params = SamplingParams(settings.max_tokens, settings.temperature, seed=settings.seed)
    answers: list[Answer] = []
    with Grader() as grader, Progress(f"evaluate {settings.task}", len(asked), 0, shown=True) as progress:
        for first in range(0, len(asked), settings.batch):
            chunk = asked[first : first + settings.batch]
            completions = [group.completions[0] for group in engine.generate(chunk, 1, params)]
            texts = [str(tokenizer.decode(list(completion.tokens), skip_special_tokens=True)) for completion in completions]
            verdicts = grader.grade(list(zip(texts, chunk, strict=True)))
            for problem, completion, text, verdict in zip(chunk, completions, texts, verdicts, strict=True):
                prompt, truth = problem.messages[-1]["content"], str(problem.ground_truth)
                judged = (verdict.score, verdict.status, verdict.detail)
                answers.append(Answer(problem.id, prompt, text, truth, *judged, completion.finish))
            right = [answer.score for answer in answers if answer.score is not None]
            progress.update(len(answers), {"accuracy": sum(right) / max(1, len(right))})
    return answers


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


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n (Wilson 1927), which stays within [0, 1] at the ends."""
    if n == 0:
        return (0.0, 1.0)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


def show(result: Result, folder: Path) -> None:
    """One line a person can read, and where the rest is."""
    low, high = result.ci95
    text = f"{result.task}: {100 * result.accuracy:.1f} % right [{100 * low:.1f}, {100 * high:.1f}] of {result.judged} judged"
    failed = result.problems - result.judged
    extra = [f"{failed} not judged"] if failed else []
    extra += [f"{result.truncated} did not stop"] if result.truncated else []
    print("; ".join([text, *extra]) + f"\n  {folder}/results.json, answers.jsonl")
