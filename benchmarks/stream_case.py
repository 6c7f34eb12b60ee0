"""The loops that `benchmarks.stream` measures: their engines, learner, graders and problems, none of which knows a model."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.sleeping_fleet import Clock, SleepingFleet
from tulu.config.cards import CARDS
from tulu.config.decoding import APART_SHARE, decoder
from tulu.config.lengths import Lengths
from tulu.config.operations import learner_operations
from tulu.config.schema import Rlvr
from tulu.config.simulated_engine import Speed
from tulu.config.simulated_graders import Graders
from tulu.config.simulation import Sampled
from tulu.config.sizes import model_size
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.fleet import Request
from tulu.rollout.journal import StreamLog
from tulu.rollout.sampler import RolloutGrader
from tulu.rollout.sampling import stable_seed
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.types import Problem, Verdict

WEIGHTS = [("w", torch.zeros(1))]
PROBLEMS = 1 << 14
"""More than any run draws, so that no problem comes twice."""
MFU = 0.4


@dataclass(frozen=True)
class Case:
    """A loop that is measured."""

    speed: Speed
    token_seconds: float
    """What the learner takes for a token."""
    lengths: Lengths
    max_staleness: int = 0
    prompts: int = 32
    samples: int = 8
    engines: int = 2
    room: int = 128
    prompt: int = 128
    teaching: float = 0.7
    """Share of the groups that teach something."""
    sync_seconds: float = 0.25
    grading_seconds: float = 0.05
    graders: int = 1
    """Answers that are graded at once, each of which takes `verdict_seconds`."""
    verdict_seconds: float = 0.0
    steps: int = 12

    @property
    def skip(self) -> int:
        """Steps in which the loop fills."""
        return self.max_staleness + 2

    def group(self, place: int) -> Sampled:
        """What becomes of a problem: the lengths of its completions, and whether it teaches something."""
        shares = [(stable_seed("length", place, sample) % 10**6 + 0.5) / 10**6 for sample in range(self.samples)]
        return [int(self.lengths.at(share)) for share in shares], stable_seed("teaches", place) % 1000 < 1000 * self.teaching

    def train_seconds(self, groups: Sequence[float]) -> float:
        """What the learner takes for groups of so many tokens."""
        return self.token_seconds * sum(groups)

    @property
    def stage(self) -> Rlvr:
        """The section of a recipe that says the same."""
        most = self.lengths.longest
        shape = {"prompts": self.prompts, "samples": self.samples, "batch": self.prompts * self.samples}
        limits = {"max_prompt": self.prompt, "max_tokens": most, "max_length": self.prompt + most}
        how = {"max_staleness": self.max_staleness, "seed": 0, "precision": "fp32", "learning_rate": 1e-6, "steps": self.steps}
        return Rlvr.model_validate({"data": {"name": "sums:train", "count": 10}, **shape, **limits, **how})

    def fleet(self, clock: Clock) -> SleepingFleet:
        """Engines that take as long."""

        def length(request: Request) -> int:
            return int(self.group(int(request.problem_id[1:]))[0][request.sample])

        return SleepingFleet(self.speed, length, self.engines, self.room, self.sync_seconds, clock)

    @property
    def problems(self) -> list[Problem]:
        """Problems without content."""
        return [Problem(f"p{place}", (), [1] * self.prompt, None, ("exact",)) for place in range(PROBLEMS)]


@dataclass
class Faster:
    """The same engine, so many times as fast."""

    speed: Speed
    factor: float

    def step_seconds(self, writing: float, cached: float) -> float:
        """A decoding step."""
        return self.speed.step_seconds(writing, cached) / self.factor

    def prompt_seconds(self, tokens: float) -> float:
        """Reading a prompt."""
        return self.speed.prompt_seconds(tokens) / self.factor


class NoText:
    """A tokenizer for completions that nobody reads."""

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        """Nothing."""
        return ""


@dataclass
class Grading:
    """A verifier that takes its time. Of a group that teaches something the first completion alone is right."""

    case: Case
    clock: Clock

    def __post_init__(self) -> None:
        self.graders, self.lock = Graders(self.case.graders, self.case.verdict_seconds), threading.Lock()

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        """One verdict for each."""
        with self.lock:
            now = self.clock.now()
            verified = self.graders.grade(now, len(items))
        if seconds := verified - now + self.case.grading_seconds:
            self.clock.sleep(seconds)
        seen: dict[str, int] = {}
        verdicts = []
        for _, problem in items:
            place = seen[problem.id] = seen.get(problem.id, -1) + 1
            verdicts.append(Verdict(float(place == 0 and self.case.group(int(problem.id[1:]))[1])))
        return verdicts


@contextmanager
def streaming(case: Case, clock: Clock, folder: Path) -> Iterator[Stream]:
    """The stream over such engines."""
    stage, total = case.stage, case.skip + case.steps + case.max_staleness + 1
    grader = RolloutGrader(Grading(case, clock), NoText(), case.problems, stage, None)  # type: ignore[arg-type]
    queue = Queue.of(stage, total, PROBLEMS)
    made = Stream(case.fleet(clock), grader, Team(Parallel(stage)), queue, StreamLog(folder), Status())
    with closing(made):
        made.sync(iter(WEIGHTS), 0)
        yield made


def on_h100s(faster: float, steps: int) -> Case:
    """One learner and two engines of OLMo 2 1B on three GPUs, so many times as fast as they would be."""
    size, card, answers = model_size("allenai/OLMo-2-0425-1B"), CARDS["h100"], Lengths(300, 2048)
    assert size is not None
    speed = decoder(size, card, 1, MFU, 428, APART_SHARE)
    case = Case(Faster(speed, faster), 0.0, answers, sync_seconds=1 / faster, grading_seconds=0.2 / faster, steps=steps)
    operations = sum(learner_operations(case.stage, size, None, case.prompt, answers).values())
    tokens = case.prompts * (case.prompt + case.samples * answers.tokens)
    return replace(case, token_seconds=operations / tokens / (card.peak * MFU) / faster)
