"""A fleet of one engine that is called in the learner's process: it samples while `collect` waits for it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, RolloutEngine, parts_of
from tulu.rollout.fleet import (
    Ended,
    EngineState,
    EngineStatus,
    Finished,
    Recovery,
    Request,
    Returned,
    SyncReport,
    joined,
    prepare_all,
)
from tulu.types import Problem, SamplingParams

NAME = "engine"
"""The name of the only engine."""


class LocalFleet:
    """Any RolloutEngine as a fleet. What was submitted is sampled in one call, whole groups at once, while `collect` waits."""

    def __init__(self, engine: RolloutEngine, room: int = 1 << 20) -> None:
        self.engine = engine
        self.most = room
        self.waiting: dict[str, Request] = {}
        """What the next call is made of."""
        self.running: dict[str, Request] = {}
        """What has not ended of the present call."""
        self.ended: list[Ended] = []
        self.tokens = 0
        self.busy_seconds = 0.0
        self._parts: Iterator[list[Finished]] = iter(())
        self._began = 0.0

    @property
    def version(self) -> int:
        """The version of the engine's weights."""
        return self.engine.version

    def states(self) -> list[EngineState]:
        """The one engine's state."""
        status: EngineStatus = "stale" if self.version == STALE else "ready"
        open_requests = len(self.waiting) + len(self.running)
        # Only an engine in a process of its own is ever started again.
        restarts = getattr(self.engine, "restarts", 0)
        return [EngineState(NAME, self.version, status, open_requests, self.tokens, self.busy_seconds, restarts)]

    def submit(self, requests: Sequence[Request]) -> None:
        """Keep these for the call after the present one."""
        for ready in prepare_all(requests, self.waiting.keys() | self.running.keys()):
            if isinstance(ready, Finished):
                self.ended.append(ready)
            else:
                self.waiting[ready.key] = ready

    def collect(self, timeout: float) -> list[Ended]:
        """What ended. This waits until the engine hands something over, which is all that was submitted unless it `works` on.

        Once a call has ended, the next `collect` makes one of what was submitted meanwhile.
        """
        ended, self.ended = self.ended, []
        began = time.monotonic()
        if not self.running:
            self.running, self.waiting = self.waiting, {}
            self._parts, self._began = self._sample([*self.running.values()]), began
        finished: list[Finished] = []
        try:
            while self.running and not finished:
                finished = self._next_part()
            if not self.running:
                # Nothing is left of the call, but the engine may have something to put away.
                deque(self._parts, maxlen=0)
        except EngineError:
            # The caller may sync and collect again: nothing that it submitted is lost, and what was cut comes back too.
            self.waiting, self.running = self.running | self.waiting, {}
            self.ended = ended
            raise
        now = time.monotonic()
        if finished:
            self.busy_seconds += now - began
            self.tokens += sum(len(end.completion.tokens) for end in finished)
        return [*ended, *(replace(end, seconds=now - self._began) for end in finished)]

    @property
    def works(self) -> bool:
        """Whether more of what was submitted is on its way."""
        return bool(self.running)

    def collect_call(self) -> list[Ended]:
        """What ended, when the whole call has."""
        ended = self.collect(0.0)
        try:
            while self.works:
                ended += self.collect(0.0)
        except EngineError:
            self.ended = ended + self.ended
            raise
        return ended

    def cut(self, keys: Sequence[str]) -> None:
        """Take these back, as far as they still wait for a call."""
        for key in keys:
            if key in self.waiting:
                self.ended.append(Returned(key, self.waiting.pop(key).begun, "it was cut", NAME))

    def room(self) -> int:
        """As many as the caller likes: more requests in one call are sampled faster."""
        return 0 if self.version == STALE else max(0, self.most - len(self.waiting) - len(self.running))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Hand the weights to the engine, which works on nothing meanwhile."""
        began = time.monotonic()
        self.engine.sync(weights, version)
        return SyncReport(version, seconds=time.monotonic() - began, engines=(NAME,))

    def rest(self) -> None:
        """Nothing: the engine keeps what it has."""

    def check(self) -> list[Recovery]:
        """Nothing: an engine in another process that died comes back within the call that it died in."""
        return []

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _next_part(self) -> list[Finished]:
        part = next(self._parts, None)
        if part is None:
            raise EngineError(f"the engine ended its call without {len(self.running)} of the completions")
        for end in part:
            del self.running[end.key]
        return part

    def _sample(self, requests: Sequence[Request]) -> Iterator[list[Finished]]:
        """Hand over what ends, first of what is new and then of what had begun."""
        yield from self._fresh([request for request in requests if not _begun(request)])
        yield from self._continued([request for request in requests if _begun(request)])

    def _fresh(self, requests: Sequence[Request]) -> Iterator[list[Finished]]:
        """Sample whole groups: a request's tokens may depend on the size of its group."""
        calls: dict[tuple[SamplingParams, int], dict[tuple[str, tuple[int, ...]], list[Request]]] = {}
        for request in requests:
            of_call = calls.setdefault((_hashable(request.params), request.samples), {})
            of_call.setdefault((request.problem_id, tuple(request.prompt)), []).append(request)
        for (params, n), of_problem in calls.items():
            problems = [Problem(name, (), list(prompt), None, ()) for name, prompt in of_problem]
            # A problem may be drawn twice; both draws are the same tokens.
            asked: list[dict[int, list[str]]] = [{} for _ in problems]
            for keys, of_group in zip(asked, of_problem.values(), strict=True):
                for request in of_group:
                    keys.setdefault(request.sample, []).append(request.key)
            for part in parts_of(self.engine, problems, n, params, [[*keys] for keys in asked]):
                yield [Finished(key, completion, NAME) for index, sample, completion in part for key in asked[index][sample]]

    def _continued(self, requests: Sequence[Request]) -> Iterator[list[Finished]]:
        """Sample behind what had begun: the tokens so far are part of the prompt that the engine reads."""
        calls: dict[SamplingParams, list[Request]] = {}
        for request in requests:
            assert request.begun is not None
            rest = request.params.max_tokens - len(request.begun.tokens)
            calls.setdefault(replace(_hashable(request.params), max_tokens=rest), []).append(request)
        for params, of_call in calls.items():
            problems = [
                Problem(f"{r.problem_id}#{r.sample}+{len(r.begun.tokens)}", (), [*r.prompt, *r.begun.tokens], None, ())
                for r in of_call
                if r.begun is not None
            ]
            for part in parts_of(self.engine, problems, 1, params, [[0]] * len(problems)):
                yield [
                    Finished(of_call[index].key, joined(of_call[index].begun, completion), NAME) for index, _, completion in part
                ]


def _begun(request: Request) -> bool:
    return request.begun is not None and bool(request.begun.tokens)


def _hashable(params: SamplingParams) -> SamplingParams:
    return replace(params, stop=tuple(params.stop))
