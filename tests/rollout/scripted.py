"""An engine and a grader that follow a script, one letter for each completion, and the on-policy steps over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from tests.rollout.fakes import Numbers
from tulu.config.schema import Rlvr
from tulu.model.parallel import Parallel
from tulu.rollout.draws import Queue
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.problem_order import ProblemOrder
from tulu.rollout.sampler import Rollout, RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.types import Completion, Finish, Group, Problem, SamplingParams, Verdict

SCORES = {
    ord("r"): Verdict(1.0),
    ord("w"): Verdict(0.0),
    ord("?"): Verdict(None, "timeout", "10 s"),
    ord("!"): Verdict(None, "error"),
    # Right, and too long for the reward model.
    ord("g"): Verdict(1.0),
}
"""The verdict on a completion by its first token: right, wrong, and two that failed."""


@dataclass
class ScriptedEngine:
    """Answers each problem with what the script says, one string of first letters per problem; remembers what was asked."""

    script: Callable[[Problem, int], str]
    """(problem, how often it was asked before) -> a letter per sample; upper case if it did not stop."""
    version: int = 0
    calls: list[tuple[list[str], SamplingParams]] = field(default_factory=list)
    asked: dict[str, int] = field(default_factory=dict)

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        self.calls.append(([problem.id for problem in problems], params))
        return [Group(problem.prompt, self._answers(problem, n), problem.id) for problem in problems]

    def _answers(self, problem: Problem, n: int) -> list[Completion]:
        letters = self.script(problem, self.asked.get(problem.id, 0))
        self.asked[problem.id] = self.asked.get(problem.id, 0) + 1
        assert len(letters) == n
        return [answer(letter) for letter in letters]

    def sync(self, weights: object, version: int) -> None:
        self.version = version

    def close(self) -> None:
        pass


def answer(letter: str) -> Completion:
    """A completion of two tokens; an upper-case letter is the same answer cut off by its length."""
    finish: Finish = "length" if letter.isupper() else "stop"
    return Completion([ord(letter.lower()), 7], [True, True], sampler_logps=[-1.0, -2.0], finish=finish, versions=[(0, 0)])


class ScriptedGrader:
    """The verdict that belongs to a completion's first token."""

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        return [SCORES[int(text.split()[0])] for text, _ in items]


def make_problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", (), [i], None, ("exact",)) for i in range(count)]


def stage(**fields: Any) -> Rlvr:
    lengths = {"max_prompt": 8, "max_tokens": 8, "max_length": 16}
    given = {"prompts": 4, "samples": 2, "batch": 8, "steps": 1, "reward_scale": 1.0, "learning_rate": 1e-3, "seed": 0}
    return Rlvr.model_validate({"data": {"name": "sums:train", "count": 10}, **lengths, **given, **fields})


@dataclass
class Steps:
    """The steps of an on-policy run, each as if the run was resumed at it."""

    engine: ScriptedEngine
    grader: RolloutGrader

    def __post_init__(self) -> None:
        self.order = ProblemOrder(len(self.grader.problems), self.grader.stage.seed)

    def collect(self, drawn: int) -> StepRollouts:
        """What the step trains on before which so many prompts were drawn."""
        settings = self.grader.stage
        queue = Queue.of(settings, 1000, len(self.grader.problems))
        with TemporaryDirectory() as folder:
            made = Stream(
                LocalFleet(self.engine), self.grader, Team(Parallel(settings)), queue, StreamLog(Path(folder)), Status()
            )
            made.resume({"drawn": drawn, "retired": self.order.state()})
            taken = made.take()
        self.order = queue.order
        return taken


def sampler(script: Callable[[Problem, int], str], settings: Rlvr, count: int = 10) -> tuple[Steps, ScriptedEngine]:
    engine = ScriptedEngine(script)
    return Steps(engine, RolloutGrader(ScriptedGrader(), cast(Any, Numbers()), make_problems(count), settings)), engine


def ids(rollouts: Sequence[Rollout]) -> list[str]:
    return [rollout.problem.id for rollout in rollouts]
