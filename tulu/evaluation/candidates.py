"""Several answers to each problem, with what a verifier and a reward model say of them, on disk as they come."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.schema import Judge
from tulu.errors import CheckpointError, RecipeError
from tulu.files import write_atomic
from tulu.grading.grader import Grader, pair_with_problem, split_off_reward_model
from tulu.model.load import hub_commit
from tulu.progress import Progress
from tulu.reward_models.answers import RewardGrader
from tulu.rollout.engine import EngineName, EngineSpec
from tulu.rollout.engines import make_engine
from tulu.types import Group, Message, Problem, SamplingParams, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled answer, and what was said of it."""

    text: str
    finish: str
    tokens: int
    score: float | None = None
    """The verifier's; None where it could not judge, or was not asked."""
    status: str = "ok"
    detail: str = ""
    reward: float | None = None
    """The reward model's; None where it could not score, or was not asked."""
    reward_detail: str = ""
    """Why there is no reward."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """A problem and its sampled answers."""

    id: str
    messages: Sequence[Message]
    ground_truth: Any
    answers: tuple[Candidate, ...]


@dataclass(frozen=True)
class Request:
    """What is sampled, by what, how often."""

    name: str
    """On the progress bar."""
    model: str
    n: int
    params: SamplingParams
    engine: EngineName = "auto"
    batch: int = 256
    """Completions between two writes; what a killed command may lose."""
    judge: Judge | None = None


@dataclass
class Samples:
    """A JSONL file that grows by whole problems, and the settings that it was made with beside it."""

    file: Path
    settings: Mapping[str, Any]
    rows: dict[str, Candidates] = field(default_factory=dict)

    @property
    def _settings_file(self) -> Path:
        return self.file.with_suffix(".settings.json")

    def open(self, fresh: bool = False) -> list[str]:
        """Read what an earlier session kept, or begin; returns the settings that differ from those of the file.

        Where some differ nothing is read or written.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        now = json.loads(json.dumps(self.settings))
        if self._settings_file.exists() and not fresh:
            before = json.loads(self._settings_file.read_text(encoding="utf-8"))
            if changed := [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]:
                return [f"{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in changed]
            self._read()
            return []
        self.remove()
        write_atomic(self._settings_file, json.dumps(now, indent=2) + "\n")
        return []

    def append(self, found: Sequence[Candidates]) -> None:
        """Add problems, on the disk before this returns."""
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(asdict(each), ensure_ascii=False, default=str) + "\n" for each in found))
            stream.flush()
            os.fsync(stream.fileno())
        self.rows.update((each.id, each) for each in found)

    def remove(self) -> None:
        """Forget everything, on disk too."""
        self.file.unlink(missing_ok=True)
        self._settings_file.unlink(missing_ok=True)

    def _read(self) -> None:
        """Rows of an earlier session; a last line that was cut in the middle is removed and its problem sampled again."""
        if not self.file.exists():
            return
        raw = self.file.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self.file, len(whole))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                answers = tuple(Candidate(**answer) for answer in row.pop("answers"))
                self.rows[row["id"]] = Candidates(**row, answers=answers)
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{self.file}:{number}: not a row of this command ({error}); --fresh starts over"
                ) from error


def collect(
    request: Request, asked: Sequence[Problem], tokenizer: "PreTrainedTokenizerBase", samples: Samples
) -> list[Candidates]:
    """Sample and score what the file does not hold yet; the candidates of every problem, in order.

    What a problem gets depends on the seed, its id and n alone, so a command that was killed ends as if it had not been.
    """
    pending = [problem for problem in asked if problem.id not in samples.rows]
    if pending:
        judge = RewardGrader.load(request.judge) if request.judge else None
        longest = max(len(problem.prompt) for problem in asked)
        spec = EngineSpec(request.model, longest + request.params.max_tokens, "fp32", version=0)
        done, total = (len(asked) - len(pending)) * request.n, len(asked) * request.n
        progress = Progress(request.name, total, done, shown=True)
        said = _Told(progress, done, samples.rows.values())
        # The bar starts after the engine, whose loading has lines of its own.
        with Grader() as grader, closing(make_engine(request.engine, spec, progress=said.during)) as engine, progress:
            size = max(1, request.batch // request.n)
            for first in range(0, len(pending), size):
                chunk = pending[first : first + size]
                groups = engine.generate(chunk, request.n, request.params)
                found = _scored(chunk, groups, tokenizer, grader, judge)
                samples.append(found)
                said.after(found)
    return [samples.rows[problem.id] for problem in asked]


def _scored(
    chunk: Sequence[Problem],
    groups: Sequence[Group],
    tokenizer: "PreTrainedTokenizerBase",
    grader: Grader,
    judge: RewardGrader | None,
) -> list[Candidates]:
    """The chunk's completions with their scores; the reward model reads all of them in one pass."""
    texts = [
        [str(tokenizer.decode(list(completion.tokens), skip_special_tokens=True)) for completion in group.completions]
        for group in groups
    ]
    items = [item for each in zip(chunk, texts, groups, strict=True) for item in pair_with_problem(*each)]
    parts = [split_off_reward_model(problem)[0] for _, problem in items]
    graded = iter(grader.grade([(text, part) for (text, _), part in zip(items, parts, strict=True) if part]))
    verdicts = iter([next(graded) if part else None for part in parts])
    preferences = iter(judge.grade(items) if judge else [None] * len(items))
    return [
        Candidates(
            problem.id,
            list(problem.messages),
            problem.ground_truth,
            tuple(
                _candidate(text, completion.finish, len(completion.tokens), next(verdicts), next(preferences))
                for text, completion in zip(row, group.completions, strict=True)
            ),
        )
        for problem, group, row in zip(chunk, groups, texts, strict=True)
    ]


def _candidate(text: str, finish: str, tokens: int, verdict: Verdict | None, preference: Verdict | None) -> Candidate:
    verdict, preference = verdict or _UNASKED, preference or _UNASKED
    score = None if verdict is _UNASKED else verdict.score
    reward = None if preference is _UNASKED else preference.score
    return Candidate(text, finish, tokens, score, verdict.status, verdict.detail, reward, preference.detail)


_UNASKED = Verdict(0.0)


class _Told:
    """Keeps the bar moving while an engine samples, with the means of what was scored so far."""

    def __init__(self, progress: Progress, done: int, known: Iterable[Candidates]) -> None:
        self.progress, self.done = progress, done
        self.sums = {"accuracy": [0.0, 0], "reward": [0.0, 0]}
        self._add(known)

    def during(self, done: int, _total: int) -> None:
        """Completions of the chunk that are finished; the chunk's last one counts once it is scored."""
        self.progress.update(min(self.done + done, self.progress.total - 1), self._figures())

    def after(self, found: Sequence[Candidates]) -> None:
        """A chunk is scored and on the disk."""
        self.done += sum(len(each.answers) for each in found)
        self._add(found)
        self.progress.update(self.done, self._figures())

    def _figures(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.sums.items() if count}

    def _add(self, found: Iterable[Candidates]) -> None:
        for answer in (answer for each in found for answer in each.answers):
            for name, value in (("accuracy", answer.score), ("reward", answer.reward)):
                if value is not None:
                    self.sums[name][0] += value
                    self.sums[name][1] += 1


def model_identity(model: str, revision: str | None = None) -> str:
    """What a model is by content: a hash of a folder's files, or a hub model's commit. Raises RecipeError."""
    folder = Path(model)
    if not folder.is_dir():
        return hub_commit(model, revision)
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".json", ".jinja"))
    if not any(file.name == "config.json" for file in files):
        raise RecipeError(f"{model}: no config.json, so no model; give a folder that save_pretrained wrote")
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as stream:
            total.update(file.name.encode() + hashlib.file_digest(stream, "blake2b").digest())
    return total.hexdigest()
