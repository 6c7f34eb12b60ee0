"""One grader of a cluster as the learner's process sees it: its actor, the cases that it has, and what it is doing now."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tulu import deadlines
from tulu.grading.actor import Numbered
from tulu.grading.task import Task
from tulu.rollout.fleet_calls import Call, EngineLost
from tulu.types import Verdict
from tulu.verifiers.registry import find

log = logging.getLogger("tulu")

REPORT_SECONDS = 1.0
"""How long a grader waits for news before it reports that there is none."""
MOST_FAILURES = 3
"""Once every grader has failed so often in a row, without a verdict in between, what waits for them is given up."""
LONGEST_REST = 300.0
"""Most seconds before a grader that failed again and again is started once more: a node may be away for a while."""
ATTEMPTS = 4
"""How often a case may be graded within a grader until it has a verdict: three attempts, and one of a neutral answer."""


@dataclass(frozen=True)
class GraderLimits:
    """Seconds that a grader may take."""

    start: float = 300.0
    """To start, the wait for a free core of the cluster included."""
    answer: float = 30.0
    """To answer at all."""
    verdict: float = 150.0
    """Between two verdicts, while it has cases, beyond what their verifiers may take: a worker may first load its libraries."""


@dataclass
class GraderMember:
    """A grader's record. Only the methods here change what it is doing."""

    name: str
    make_actor: Callable[[], Any]
    limits: GraderLimits
    pid: int = 0
    is_ready: bool = False
    held: dict[int, Task] = field(default_factory=dict)
    """The cases that it has, by the number under which their verdicts come back."""
    load: float = 0.0
    """Seconds that all of them will take, as far as that is known."""
    failures: int = 0
    """In a row."""
    reason: str = ""
    """Why it failed last."""
    _actor: Any = None
    _call: Call | None = None
    """That it starts."""
    _ear: Call | None = None
    """The report that is awaited."""
    _sent: list[Call] = field(default_factory=list)
    _costs: dict[int, float] = field(default_factory=dict)
    _numbers: Any = field(default_factory=count)
    _verdict_at: float = 0.0
    """When it last reached a verdict, or got a case while it had none."""
    _begin_at: float | None = None
    """When it is started again."""

    @property
    def has_failed_often(self) -> bool:
        """Whether it cannot be counted on."""
        return self.failures > MOST_FAILURES

    def start(self) -> None:
        """Start the process of the grader."""
        self._begin_at = None
        self._actor = self.make_actor()
        self._call = Call(self.name, "waiting for a free core of the cluster", self._actor.start.remote(), self.limits.start)

    def calls(self) -> list[Call]:
        """All that it has not answered yet."""
        return [*self._sent, *(call for call in (self._call, self._ear) if call is not None)]

    def take(self, task: Task, seconds: float) -> int:
        """Give it a case, which is expected to take so long; returns its number, with which it is to be sent."""
        number: int = next(self._numbers)
        if not self.held:
            self._verdict_at = deadlines.now()
        self.held[number], self._costs[number] = task, seconds
        self.load += seconds
        return number

    def send(self, cases: Sequence[Numbered]) -> None:
        """Send cases that it has taken."""
        self._sent.append(Call(self.name, "taking cases", self._actor.submit.remote(list(cases)), self.limits.answer))

    def drop(self, number: int) -> Task | None:
        """It does not have a case any more; returns the case, or None if it had none of this number."""
        task = self.held.pop(number, None)
        self.load = self.load - self._costs.pop(number, 0.0) if self.held else 0.0
        return task

    def step(self, answered: set[Any]) -> list[tuple[Task, Verdict, float]]:
        """Take over what it answered, and look at its deadlines; returns verdicts. Raises EngineLost where it failed."""
        now = deadlines.now()
        if self._begin_at is not None and now >= self._begin_at:
            self.start()
        for call in self._sent:
            self._answer(call, answered)
        self._sent = [call for call in self._sent if call.reference not in answered]
        if self._call is not None and self._answer(self._call, answered):
            self.pid, self._call, self.is_ready = self._call.answer(), None, True
            self._listen()
        verdicts = []
        if self._ear is not None and self._answer(self._ear, answered):
            report = self._ear.answer()
            self._listen()
            for graded in report:
                self._verdict_at = now
                self.failures = 0
                if (task := self.drop(graded.number)) is not None:
                    verdicts.append((task, graded.verdict, graded.seconds))
        self._check_silence(now, bool(verdicts))
        return verdicts

    def _answer(self, call: Call, answered: set[Any]) -> bool:
        """Whether a call was answered. Raises EngineLost where that failed or takes too long."""
        if call.reference not in answered:
            call.check()
            return False
        if call is not self._call and call is not self._ear:
            call.answer()
        return True

    def _check_silence(self, now: float, has_spoken: bool) -> None:
        if not self.held or has_spoken:
            return
        longest = max(find(task.name).deadline or 0.0 for task in self.held.values())
        limit = self.limits.verdict + ATTEMPTS * longest
        if (waited := now - self._verdict_at) >= limit:
            names = ", ".join(sorted({task.name for task in self.held.values()}))
            raise EngineLost(
                self.name, f"it hangs: no verdict on {len(self.held)} cases ({names}) for {waited:.0f} s", hangs=True
            )

    def _listen(self) -> None:
        self._ear = Call(self.name, "silent", self._actor.report.remote(REPORT_SECONDS), self.limits.answer + REPORT_SECONDS)

    def fail(self, reason: str, hangs: bool) -> list[Task]:
        """End its process, start another at once or after a rest, and return the cases that it has not answered."""
        owed = [*self.held.values()]
        what = "are masked" if hangs else "are graded again"
        log.warning("%s failed: %s; it is started again, and its %d cases %s", self.name, reason, len(owed), what)
        self.reason = reason
        self.failures += 1
        self.end()
        rest = 0.0 if self.failures <= MOST_FAILURES else min(LONGEST_REST, 2.0**self.failures)
        self._begin_at = deadlines.now() + rest
        return owed

    def end(self) -> None:
        """End its process."""
        import ray

        self.held, self._costs, self.load, self.is_ready = {}, {}, 0.0, False
        self._sent, self._call, self._ear, self._begin_at = [], None, None, None
        actor, self._actor = self._actor, None
        if actor is not None:
            ray.kill(actor, no_restart=True)
