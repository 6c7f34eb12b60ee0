"""A fleet of engines that know no model and take as long as one on a GPU would, to measure the loop around them.

Every engine goes from one decoding step to the next, in each of which all completions that it writes get one token. How long a
step takes is what a model of the GPU says (tulu/config/decoding.py). What ends, what waits and which weights sampled what is as
in the fleet of vLLM engines (tulu/rollout/ray_fleet.py).
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from torch import Tensor

from tulu.config.simulated_engine import Speed
from tulu.rollout.engine import STALE
from tulu.rollout.fleet import Ended, EngineState, Finished, Recovery, Request, Returned, SyncReport
from tulu.types import Completion, Finish

TOKEN = 65
"""What every completion consists of; as a byte it is a letter."""
LEAST_SLEEP = 0.0005
"""Seconds; to sleep for less takes as long."""


class Clock:
    """The time in which fleet and learner live."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Work that takes so long."""
        time.sleep(seconds)

    def wait(self, until: float) -> bool:
        """Wait for an engine until then at most; returns whether it is worth to wait on."""
        time.sleep(max(LEAST_SLEEP, until - self.now()))
        return True


@dataclass(order=True)
class Writing:
    """A completion that an engine writes."""

    ends: int
    """Count of the engine's decoding steps by then."""
    number: int
    request: Request = field(compare=False)
    length: int = field(compare=False)
    versions: list[tuple[int, int]] = field(compare=False)


class SleepingEngine:
    """One engine, which looks back at what it has done since it was asked last."""

    def __init__(self, name: str, speed: Speed, clock: Clock, logp: float = -1.0) -> None:
        self.name, self.speed, self.clock, self.logp = name, speed, clock, logp
        self.writing: list[Writing] = []
        """A heap: what ends first comes first."""
        self.joining: list[tuple[Request, int]] = []
        """What begins with the next step."""
        self.steps = self.number = self.cached = 0
        self.ends_at: float | None = None
        """When the step ends that it is in; None while it has nothing to do."""
        self.tokens, self.busy, self.since = 0, 0.0, clock.now()
        self.prompts: set[str] = set()
        """Which prompts it has read."""
        self.done: list[tuple[str, int]] = []
        """Every completion that it has ended: its problem and its length."""

    @property
    def running(self) -> int:
        """Completions that it works on."""
        return len(self.writing) + len(self.joining)

    def advance(self, now: float, version: int) -> list[Finished]:
        """Do all that was to be done until now; returns what ended."""
        finished: list[Finished] = []
        if self.ends_at is None and self.joining:
            self._begin_step(now, version)
        while self.ends_at is not None and self.ends_at <= now:
            ended = self.ends_at
            self.steps += 1
            self.cached += len(self.writing)
            self.tokens += len(self.writing)
            while self.writing and self.writing[0].ends <= self.steps:
                one = heappop(self.writing)
                self.cached -= len(one.request.prompt) + one.length
                finished.append(self._finished(one))
            if self.running:
                self._begin_step(ended, version)
            else:
                self.ends_at = None
                self.busy += ended - self.since
        return finished

    def _begin_step(self, now: float, version: int) -> None:
        if self.ends_at is None:
            self.since = now
        reading = 0
        for request, length in self.joining:
            prompt = request.key.split(":")[0]
            reading += 0 if prompt in self.prompts else len(request.prompt)
            self.prompts.add(prompt)
            self.number += 1
            heappush(self.writing, Writing(self.steps + length, self.number, request, length, [(0, version)]))
            self.cached += len(request.prompt)
        self.joining.clear()
        step = self.speed.step_seconds(len(self.writing), self.cached)
        self.ends_at = now + (self.speed.prompt_seconds(reading) if reading else 0.0) + step

    def _finished(self, one: Writing) -> Finished:
        finish: Finish = "length" if one.length >= one.request.params.max_tokens else "stop"
        self.done.append((one.request.problem_id, one.length))
        tokens = [TOKEN] * one.length
        logps = [self.logp] * one.length
        return Finished(one.request.key, Completion(tokens, [True] * one.length, logps, finish, one.versions), self.name)

    def take(self, version: int, seconds: float) -> None:
        """Stand still for so long, and go on with these weights."""
        if self.ends_at is not None:
            self.ends_at += seconds
        for one in self.writing:
            done = one.length - (one.ends - self.steps)
            if one.versions[-1][0] == done:
                one.versions.pop()
            one.versions.append((done, version))

    def state(self, version: int) -> EngineState:
        """What is known of it."""
        busy = self.busy + (self.clock.now() - self.since if self.ends_at is not None else 0.0)
        return EngineState(self.name, version, "ready", self.running, self.tokens, busy)


class SleepingFleet:
    """Several such engines; `length` says how many tokens a completion gets, and `logp` is what is said of each."""

    def __init__(
        self,
        speed: Speed,
        length: Callable[[Request], int],
        engines: int,
        room: int,
        sync_seconds: float = 0.0,
        clock: Clock | None = None,
        logp: float = -1.0,
    ) -> None:
        self.clock = clock or Clock()
        self.length, self.most, self.sync_seconds = length, room, sync_seconds
        self.engines = [SleepingEngine(f"asleep-{number}", speed, self.clock, logp) for number in range(engines)]
        self.version = STALE
        self.waiting: deque[Request] = deque()
        self.ended: list[Ended] = []

    def states(self) -> list[EngineState]:
        """What is known of each engine."""
        return [engine.state(self.version) for engine in self.engines]

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin to write these."""
        self._advance()
        self.waiting.extend(requests)
        self._dispatch()

    def collect(self, timeout: float) -> list[Ended]:
        """What ended since the last call; waits at most so long for the first."""
        until = self.clock.now() + timeout
        while True:
            self._advance()
            if self.ended or self.clock.now() >= until:
                break
            if not self.clock.wait(min([until, *(one.ends_at for one in self.engines if one.ends_at is not None)])):
                break
        ended, self.ended = self.ended, []
        return ended

    def cut(self, keys: Sequence[str]) -> None:
        """Take back what no engine has begun; the rest ends soon."""
        back = [request for request in self.waiting if request.key in set(keys)]
        self.waiting = deque(request for request in self.waiting if request.key not in set(keys))
        self.ended += [Returned(request.key, request.begun, "it was cut") for request in back]

    def room(self) -> int:
        """How many more requests the engines would work on."""
        return max(0, sum(self.most - engine.running for engine in self.engines) - len(self.waiting))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Let all engines stand still for as long as a sync takes."""
        for _ in weights:
            pass
        self._advance()
        if self.version != STALE:
            self.clock.sleep(self.sync_seconds)
        for engine in self.engines:
            engine.take(version, self.sync_seconds if self.version != STALE else 0.0)
        self.version = version
        return SyncReport(version, seconds=self.sync_seconds)

    def rest(self) -> None:
        """Do nothing: these engines have cards of their own."""

    def check(self) -> list[Recovery]:
        """None failed."""
        return []

    def close(self) -> None:
        """There is nothing to end."""

    def _advance(self) -> None:
        now = self.clock.now()
        for engine in self.engines:
            self.ended += engine.advance(now, self.version)
        self._dispatch()

    def _dispatch(self) -> None:
        """The engine with the most room gets the next prompt's requests, as in the fleet of vLLM engines."""
        chosen, problem = self.engines[0], None
        while self.waiting:
            if self.waiting[0].problem_id != problem or chosen.running >= self.most:
                chosen = min(self.engines, key=lambda engine: engine.running)
                problem = self.waiting[0].problem_id
            if chosen.running >= self.most:
                break
            request = self.waiting.popleft()
            chosen.joining.append((request, self.length(request)))
        for engine in self.engines:
            self.ended += engine.advance(self.clock.now(), self.version)
