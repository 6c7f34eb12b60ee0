"""A case on its way through the pool, and who is to blame where it reaches no verdict."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from tulu.grading.worker import OVER_LIMIT
from tulu.types import Verdict
from tulu.verifiers.contract import Case, Mode, neutral_cases
from tulu.verifiers.registry import find


@dataclass(slots=True, eq=False)
class Task:
    """A case that waits for its verdict."""

    name: str
    mode: Mode
    case: Case
    future: "Future[Verdict]" = field(default_factory=Future)
    deaths: int = 0
    """Processes that ended by themselves while they graded it."""
    attempt: int = 1
    """As in Case: 1 while others wait, 2 at full length, 3 once the rest is done, because the machine may have been too busy."""
    seconds: float = 0.0
    """Time from the start of grading to the verdict."""
    is_neutral: bool = False
    """Whether it shows whose fault it was that another task of the same row reached no verdict."""

    def resolve(self, verdict: Verdict, seconds: float) -> None:
        """Give the verdict to whoever waits for it."""
        self.seconds = seconds
        # A future that was cancelled takes no verdict.
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(verdict)


def neutral_task(task: Task, verdict: Verdict, seconds: float) -> Task | None:
    """A neutral answer to the row of a task that ended its process or computed too long, which shows who is to blame.

    If the neutral answer reaches no verdict either, `verdict` stands, which masks the sample; else the answer is to blame and
    scores 0. The result is None, and the task resolved, where there is nothing to find out: its verifier names a CPU limit,
    which is then the answer's, the machine was too slow, or the task is of mode tulu3 or a neutral answer itself.
    """
    blamed = Verdict(0.0, detail=verdict.detail)
    if verdict.detail == OVER_LIMIT and find(task.name).cpu_seconds is not None:
        task.resolve(blamed, seconds)
        return None
    if (verdict.status == "timeout" and verdict.detail != OVER_LIMIT) or task.is_neutral or task.mode != "strict":
        task.resolve(verdict, seconds)
        return None
    neutral = Task(task.name, task.mode, neutral_cases(task.case)[0], is_neutral=True)

    def decide(done: "Future[Verdict]") -> None:
        task.resolve(verdict if done.result().score is None else blamed, seconds)

    neutral.future.add_done_callback(decide)
    return neutral
