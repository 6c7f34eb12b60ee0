"""Several answers to each problem, with their scores by a verifier and a reward model, written to disk as they come."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.options import EngineName
from tulu.config.schema import RewardModelSettings
from tulu.errors import RecipeError
from tulu.files import PinnedLog
from tulu.grading.grader import Grader, grade_by_verifiers, pair_with_problems
from tulu.model.generation import turn_end_tokens
from tulu.model.load import hub_commit
from tulu.progress import Progress
from tulu.reward_models.grader import RewardGrader
from tulu.rollout.acting import Acting
from tulu.rollout.engine import EngineSpec, ProgressCallback, RolloutEngine
from tulu.rollout.engines import make_engine
from tulu.rollout.played import PlayedEngine
from tulu.types import Completion, Group, Message, Problem, SamplingParams, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled answer with its scores."""

    text: str
    finish: str
    tokens: int
    score: float | None = None
    """The verifier's score; None where the verifier failed, or there is none."""
    status: str = "ok"
    detail: str = ""
    reward: float | None = None
    """The reward model's score; None where the reward model failed, or there is none."""
    reward_detail: str = ""
    """Why the reward model failed."""


@dataclass(frozen=True, slots=True)
class ScoredProblem:
    """A problem and the answers that were sampled for it: a row of samples.jsonl."""

    id: str
    messages: Sequence[Message]
    ground_truth: Any
    answers: tuple[Candidate, ...]


@dataclass(frozen=True)
class SampleRequest:
    """Which model samples how many answers, and what scores them beside the problems' verifiers."""

    name: str
    """The name beside the progress bar."""
    model: str
    n: int
    """Answers to each problem."""
    params: SamplingParams
    engine: EngineName = "auto"
    batch: int = 256
    """Answers between two writes, which is what a killed command may lose."""
    reward_model: RewardModelSettings | None = None
    revision: str | None = None
    """Commit or tag of a model on the hub."""
    trust_remote_code: bool = False
    """Whether code that a model brings along may run."""
    acting: Acting | None = None
    """The environment whose episodes the answers are."""


class SampleFile:
    """samples.jsonl, which grows by whole problems, and beside it the settings that it was made with."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        # A ground truth of a data set's row may be a date or a number that JSON has no type for.
        self.log = PinnedLog(folder / "samples.jsonl", folder / "samples.settings.json", settings, default=str)
        self.rows: dict[str, ScoredProblem] = {}
        """The problems in the file, by their id."""

    def open(self, fresh: bool = False) -> None:
        """Read the rows of an earlier session, or begin a new file. Raises RecipeError if rows have other settings."""
        self.log.open(fresh)
        self.rows = {row.id: row for row in self.log.read(_parse_row)}

    def append(self, problems: Sequence[ScoredProblem]) -> None:
        """Add problems; they are on the disk when this returns."""
        self.log.append(map(asdict, problems))
        self.rows.update((problem.id, problem) for problem in problems)


def _parse_row(row: dict[str, Any], _where: str) -> ScoredProblem:
    answers = tuple(Candidate(**answer) for answer in row.pop("answers"))
    return ScoredProblem(**row, answers=answers)


def collect(
    request: SampleRequest, problems: Sequence[Problem], tokenizer: "PreTrainedTokenizerBase", samples: SampleFile
) -> list[ScoredProblem]:
    """Sample and score what the file does not hold yet; returns every problem with its answers, in order.

    What a problem gets depends on the seed, its id and n alone, so that a command that was killed ends as if it had not been.
    """
    pending = [problem for problem in problems if problem.id not in samples.rows]
    if pending:
        trusted, reward_model = request.trust_remote_code, request.reward_model
        reward_grader = RewardGrader.load(reward_model, trust_remote_code=trusted) if reward_model else None
        longest = max(len(problem.prompt) for problem in problems)
        spec = EngineSpec(
            request.model,
            longest + request.params.max_tokens,
            "fp32",
            version=0,
            revision=request.revision,
            trust_remote_code=trusted,
            turn_ends=turn_end_tokens(tokenizer),
        )
        done, total = (len(problems) - len(pending)) * request.n, len(problems) * request.n
        progress = Progress(request.name, total, done)
        figures = _RunningFigures(progress, done, samples.rows.values())
        # The bar starts after the engine, because loading an engine writes lines of its own.
        with Grader() as grader, closing(_engine(request, spec, problems, figures.show_sampled)) as engine, progress:
            size = max(1, request.batch // request.n)
            for first in range(0, len(pending), size):
                chunk = pending[first : first + size]
                groups = engine.generate(chunk, request.n, request.params)
                scored = _score(chunk, groups, tokenizer, grader, reward_grader)
                samples.append(scored)
                figures.show_scored(scored)
    return [samples.rows[problem.id] for problem in problems]


def _engine(request: SampleRequest, spec: EngineSpec, problems: Sequence[Problem], show: ProgressCallback) -> RolloutEngine:
    """What answers: an engine, or the episodes that it plays."""
    if request.acting is None:
        return make_engine(request.engine, spec, progress=show)
    return PlayedEngine(make_engine(request.engine, spec), request.acting, problems)


def _score(
    chunk: Sequence[Problem],
    groups: Sequence[Group],
    tokenizer: "PreTrainedTokenizerBase",
    grader: Grader,
    reward_grader: RewardGrader | None,
) -> list[ScoredProblem]:
    """The chunk's problems with their scored completions; the reward model reads all of them in one pass."""
    items = pair_with_problems(chunk, groups, tokenizer)
    completions = [completion for group in groups for completion in group.completions]
    # An environment's verdict on its episode stands.
    asked = [item for item, completion in zip(items, completions, strict=True) if completion.verdict is None]
    given = iter(grade_by_verifiers(grader, asked))
    verdicts = [next(given) if completion.verdict is None else completion.verdict for completion in completions]
    rewards: Sequence[Verdict | None] = reward_grader.grade(items) if reward_grader else [None] * len(items)
    candidates = map(_make_candidate, completions, items, verdicts, rewards)
    return [
        ScoredProblem(problem.id, list(problem.messages), problem.ground_truth, tuple(islice(candidates, len(group.completions))))
        for problem, group in zip(chunk, groups, strict=True)
    ]


def _make_candidate(
    completion: Completion, item: tuple[str, Problem], verdict: Verdict | None, reward: Verdict | None
) -> Candidate:
    """An answer with its verdicts, each None where nobody gave one."""
    scores: dict[str, Any] = {"score": verdict.score, "status": verdict.status, "detail": verdict.detail} if verdict else {}
    rewards: dict[str, Any] = {"reward": reward.score, "reward_detail": reward.detail} if reward else {}
    return Candidate(item[0], completion.finish, len(completion.tokens), **scores, **rewards)


class _RunningFigures:
    """Keeps the bar moving while an engine samples, with the mean score and reward so far."""

    def __init__(self, progress: Progress, done: int, problems: Iterable[ScoredProblem]) -> None:
        self.progress, self.done = progress, done
        self.sums = {"accuracy": [0.0, 0], "reward": [0.0, 0]}
        self._add(problems)

    def show_sampled(self, sampled: int, _total: int) -> None:
        """Count the completions of a chunk that are finished; its last one counts only once the chunk is scored."""
        self.progress.update(min(self.done + sampled, (self.progress.total or 0) - 1), self._means())

    def show_scored(self, problems: Sequence[ScoredProblem]) -> None:
        """Count a chunk that is scored and on the disk."""
        self.done += sum(len(problem.answers) for problem in problems)
        self._add(problems)
        self.progress.update(self.done, self._means())

    def _means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def _add(self, problems: Iterable[ScoredProblem]) -> None:
        for answer in (answer for problem in problems for answer in problem.answers):
            for name, value in (("accuracy", answer.score), ("reward", answer.reward)):
                if value is not None:
                    self.sums[name][0] += value
                    self.sums[name][1] += 1


def model_identity(model: str, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """A hash of the files of a model's folder, or the commit of a hub model. Raises RecipeError where there is no model."""
    folder = Path(model)
    if not folder.is_dir():
        return hub_commit(model, revision, trust_remote_code)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".json", ".jinja"))
    if not any(file.name == "config.json" for file in files):
        raise RecipeError(f"{model}: no config.json, so no model; give a folder that save_pretrained wrote")
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            total.update(file.name.encode() + hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()
