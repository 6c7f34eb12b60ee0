"""Graders on other nodes: the pool of grading processes of a Ray cluster, in place of that of this machine.

`Grader` (tulu/grading/grader.py) decides what is cheap, what is cached and how several verifiers make one score; it gives what
is left to a pool. `RayWorkers` is such a pool: it gives every case to one of its graders, which are Ray actors with a process
that can be killed inside (tulu/grading/actor.py), and sees to it that every case gets one verdict, whatever becomes of the
grader: what a grader that died had not answered is graded by another one, and what a grader that hangs owes is masked.
"""

import heapq
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tulu.children import MEMORY_MB
from tulu.config.cluster import cluster_address, in_one_line
from tulu.config.schema import Rlvr
from tulu.errors import TuluError
from tulu.grading.actor import GradingNode, Numbered
from tulu.grading.grader import Grader
from tulu.grading.task import Task
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleet_calls import EngineLost
from tulu.rollout.grader_member import GraderLimits, GraderMember
from tulu.rollout.vllm_engine import start_ray
from tulu.types import Verdict
from tulu.verifiers.contract import Settings
from tulu.verifiers.custom import known_everywhere

log = logging.getLogger("tulu")

TICK_SECONDS = 0.2
"""How often deadlines are looked at while no grader reports."""
MOST_DEATHS = 3
"""Graders that may die with a case, until no other is asked for it: it may be what kills them."""
FIRST_PACE = 0.05
"""Seconds that a verdict is expected to take while no verifier of its name has reached one."""
AHEAD_SECONDS = 0.5
"""Work that a grader is given in advance, so that it does not wait for the network. What it has is what hangs with it."""

Settled = list[tuple[Task, Verdict, float]]
"""Tasks with their verdicts and what these took, to be told once the lock is free."""


class RayWorkers:
    """So many graders in a Ray cluster, spread over its nodes. A thread listens to them while the learner trains."""

    def __init__(
        self,
        count: int,
        deadline: float = 6.0,
        memory_mb: int = MEMORY_MB,
        limits: GraderLimits | None = None,
        actor: type[GradingNode] = GradingNode,
        own_ray: bool = False,
    ) -> None:
        """Ray must be there; with `own_ray` it ends with this. The graders start in the background."""
        self.own_ray = own_ray
        self.queue: deque[Task] = deque()
        self.pace: dict[str, float] = {}
        """Recent average of the seconds that a verdict of each verifier takes."""
        self.closing = False
        self.changed = threading.Condition()
        """Held while anything here is read or changed."""
        make_actor = _maker(actor, deadline, memory_mb)
        self.members = [GraderMember(f"grader-{index + 1}", make_actor, limits or GraderLimits()) for index in range(count)]
        for member in self.members:
            member.start()
        self.thread = threading.Thread(target=self._listen, name="graders", daemon=True)
        self.thread.start()

    def submit(self, tasks: list[Task]) -> None:
        """Queue tasks. Each of their futures gets a verdict, whatever happens."""
        with self.changed:
            if self.closing:
                raise TuluError("the grader is closed")
            self.queue.extend(tasks)
            settled = self._feed()
        _tell(settled)

    def pids(self) -> list[int]:
        """The process ids of the graders that have started, on whatever node each is."""
        with self.changed:
            return [member.pid for member in self.members if member.is_ready]

    def close(self) -> None:
        """End the graders, and Ray if it was started for them. Verdicts that are still awaited get the status error."""
        import ray

        with self.changed:
            self.closing = True
            left = self._all()
        _tell([(task, Verdict(None, "error", "the grader was closed"), 0.0) for task in left])
        self.thread.join(10)
        if self.own_ray:
            ray.shutdown()
            self.own_ray = False

    def _listen(self) -> None:
        """What the thread does: wait until a grader says something, and take note of it."""
        import ray

        while True:
            with self.changed:
                waited = [call.reference for member in self.members for call in member.calls()]
            if waited:
                ray.wait(waited, num_returns=1, timeout=TICK_SECONDS)
                # One look at all of them is much cheaper than one at each.
                answered = set(ray.wait(waited, num_returns=len(waited), timeout=0)[0])
            else:
                answered = set()
                time.sleep(TICK_SECONDS)
            with self.changed:
                if self.closing:
                    return
                try:
                    settled = self._advance(answered)
                except Exception as error:  # noqa: BLE001
                    # An error of this thread would else be seen by nobody, and verdicts awaited for ever.
                    settled = self._break(error)
            _tell(settled)

    # What follows is called with the lock held, and does not wait.

    def _advance(self, answered: set[Any]) -> Settled:
        settled: Settled = []
        for member in self.members:
            try:
                for task, verdict, seconds in member.step(answered):
                    self.pace[task.name] = 0.9 * self.pace.get(task.name, seconds) + 0.1 * seconds + 1e-6
                    settled.append((task, verdict, seconds))
            except EngineLost as error:
                settled += self._lost(member, error)
        if all(member.has_failed_often for member in self.members):
            told = "; ".join(f"{member.name}: {member.reason}" for member in self.members)
            verdict = Verdict(None, "error", f"no grader is left ({told})")
            settled += [(task, verdict, 0.0) for task in self.queue]
            self.queue.clear()
        return settled + self._feed()

    def _lost(self, member: GraderMember, error: EngineLost) -> Settled:
        """A grader died or hangs, and another is started in its place: its cases are graded elsewhere, or masked."""
        owed = member.fail(error.reason, error.hangs)
        told = f"{member.name}: {error.reason}"
        if error.hangs:
            # Nobody knows whether a case makes it hang, and a step has waited for them for long enough.
            return [(task, Verdict(None, "timeout", told), 0.0) for task in owed]
        settled: Settled = []
        for task in reversed(owed):
            task.deaths += 1
            if task.deaths < MOST_DEATHS:
                self.queue.appendleft(task)
            else:
                settled.append((task, Verdict(None, "error", f"{MOST_DEATHS} graders died with it ({told})"), 0.0))
        return settled

    def _feed(self) -> Settled:
        """Give waiting cases to the graders that have the least to do."""
        settled: Settled = []
        room = [(member.load, index) for index, member in enumerate(self.members) if self._has_room(member)]
        heapq.heapify(room)
        batches: dict[int, list[Numbered]] = {}
        while self.queue and room:
            _, index = heapq.heappop(room)
            task, member = self.queue.popleft(), self.members[index]
            number = member.take(task, self.pace.get(task.name, FIRST_PACE))
            batches.setdefault(index, []).append(_on_the_way(number, task))
            if self._has_room(member):
                heapq.heappush(room, (member.load, index))
        for index, cases in batches.items():
            try:
                self.members[index].send(cases)
            except Exception as error:  # noqa: BLE001
                # Whatever Ray says, such as that its object store is full, is told where the verdict is awaited.
                settled += self._unsent(self.members[index], cases, error)
        return settled

    def _has_room(self, member: GraderMember) -> bool:
        """A grader has one case to grade and one to go on with, however long they take, or cheap ones for AHEAD_SECONDS."""
        return member.is_ready and (len(member.held) < 2 or member.load < AHEAD_SECONDS)

    def _unsent(self, member: GraderMember, cases: Sequence[Numbered], error: Exception) -> Settled:
        text = in_one_line(error)
        log.warning("%d cases do not reach %s: %s", len(cases), member.name, text)
        dropped = [task for one in cases if (task := member.drop(one.number)) is not None]
        return [(task, Verdict(None, "error", f"it does not reach {member.name} ({text})"), 0.0) for task in dropped]

    def _break(self, error: Exception) -> Settled:
        """Nobody listens to the graders any more, so that nothing may wait for them."""
        log.error("the graders cannot be listened to any more (%s: %s)", type(error).__name__, error)
        self.closing = True
        left = self._all()
        return [(task, Verdict(None, "error", f"nobody listens to the graders ({error})"), 0.0) for task in left]

    def _all(self) -> list[Task]:
        """Take away every case that has no verdict."""
        left = [*self.queue, *(task for member in self.members for task in member.held.values())]
        self.queue.clear()
        for member in self.members:
            member.end()
        return left


def grader_of(stage: Rlvr, spec: EngineSpec, settings: Settings, is_main: bool) -> Grader:
    """The grader of a recipe's stage. Where graders are elsewhere, only the main process asks them."""
    pool = None
    if stage.resources.graders and is_main:
        own_ray = start_ray(spec.folder, spec.dtype)
        log.info("verdicts: graders in Ray: %d", stage.resources.graders)
        pool = RayWorkers(stage.resources.graders, own_ray=own_ray)
    return Grader(mode=stage.verifier_mode, settings=settings, pool=pool)


def _tell(settled: Settled) -> None:
    """Hand over verdicts. Those who wait for them may ask for more at once, so that this holds no lock."""
    for task, verdict, seconds in settled:
        task.resolve(verdict, seconds)


def _on_the_way(number: int, task: Task) -> Numbered:
    """A case as it travels."""
    return Numbered(number, known_everywhere(task.name), task.mode, task.case)


def _maker(actor: type[GradingNode], deadline: float, memory_mb: int) -> Callable[[], Any]:
    """What makes the Ray actor of one grader."""
    import sys

    import ray

    settings = {name: value for name, value in os.environ.items() if name.startswith("TULU_")}
    options: dict[str, Any] = {
        "max_restarts": 0,
        "max_task_retries": 0,
        # On a machine alone the graders share the cores with everything else; in a cluster each has one of its own.
        "num_cpus": 1 if cluster_address() else 0,
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": settings},
    }
    remote = ray.remote(actor).options(**options)
    return lambda: remote.remote(1, deadline, memory_mb, os.getcwd(), sys.path)
