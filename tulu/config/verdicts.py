"""What a plan takes verifiers to need: seconds for the verdict of one answer, and how many of them are reached at once."""

from dataclasses import dataclass

from tulu.config.schema import Rlvr
from tulu.verifiers.judge import REQUESTS
from tulu.verifiers.registry import VERIFIERS

RULES = 0.0005
"""Seconds of a core for what compares texts and numbers: 3,813 verdicts of ifeval a second on two cores, the slowest of the rules
that were measured (benchmarks/results/verifiers.json)."""
PROGRAMS = 0.022
"""The same for a program and its tests: 91 verdicts a second on two cores, eight assertions a program (the same file). A program
may take as long as `verifier_settings.code_seconds` for each test."""
JUDGE = 2.0
"""Seconds until a judge answers. An assumption."""
CORES = 32
"""Cores of the learner's machine, each of which grades where `resources.graders` is 0. An assumption."""


@dataclass(frozen=True)
class Grading:
    """How the answers of a stage are graded."""

    seconds: float
    """For one answer."""
    seconds_from: str
    graders: int
    """Answers that are graded at once."""
    graders_from: str
    asks_judge: bool = False
    """Whether a server is asked, which no further graders make faster."""
    given: bool = False
    """Whether somebody has said what grading takes, or how many graders there are."""

    def least_seconds(self, answers: int) -> float:
        """What so many answers take at least."""
        return answers * self.seconds / self.graders

    @property
    def told(self) -> str:
        """All of it in words."""
        return f"{self.graders:,} ({self.graders_from}), {self.seconds:g} s an answer ({self.seconds_from})"


def grading_of(section: Rlvr, seconds: float | None) -> Grading:
    """How a stage grades, with these seconds for each answer if they are given."""
    verifier = VERIFIERS.get((section.verifier or "").lower())
    asks_judge = verifier is not None and verifier.place == "thread"
    own, source = _seconds(section, asks_judge)
    stated = section.resources.graders
    if asks_judge:
        graders, graders_from = REQUESTS, "requests at once"
    elif stated:
        graders, graders_from = stated, "resources.graders"
    else:
        graders, graders_from = CORES, "cores of the learner's machine, assumed; resources.graders"
    return Grading(
        seconds=own if seconds is None else seconds,
        seconds_from=source if seconds is None else "--grade-seconds",
        graders=graders,
        graders_from=graders_from,
        asks_judge=asks_judge,
        given=seconds is not None or stated > 0,
    )


def _seconds(section: Rlvr, asks_judge: bool) -> tuple[float, str]:
    """What the stage's verifier takes, and where that is from."""
    if asks_judge:
        return JUDGE, f"{section.verifier}: assumed, --grade-seconds"
    if (section.verifier or "").lower() in ("code", "code_stdio"):
        return PROGRAMS, f"{section.verifier}: measured with eight short tests, --grade-seconds"
    if section.verifier is not None:
        return RULES, f"{section.verifier}: as rules were measured, --grade-seconds"
    return RULES, "each row's own verifier: as rules were measured; programs and judges take longer, --grade-seconds"
