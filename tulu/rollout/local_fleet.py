"""A fleet of one engine that is called in the learner's process: it samples while `collect` waits for it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, RolloutEngine
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
    """Any RolloutEngine as a fleet. What was submitted is sampled by the next `collect`, whole groups in one call."""

    def __init__(self, engine: RolloutEngine, room: int = 1 << 20) -> None:
        self.engine = engine
        self.most = room
        self.waiting: dict[str, Request] = {}
        self.ended: list[Ended] = []
        self.tokens = 0
        self.busy_seconds = 0.0

    @property
    def version(self) -> int:
        """The version of the engine's weights."""
        return self.engine.version

    def states(self) -> list[EngineState]:
        """The one engine's state."""
        status: EngineStatus = "stale" if self.version == STALE else "ready"
        return [EngineState(NAME, self.version, status, len(self.waiting), self.tokens, self.busy_seconds)]

    def submit(self, requests: Sequence[Request]) -> None:
        """Keep these for the next `collect`."""
        for ready in prepare_all(requests, self.waiting):
            if isinstance(ready, Finished):
                self.ended.append(ready)
            else:
                self.waiting[ready.key] = ready

    def collect(self, timeout: float) -> list[Ended]:
        """Sample all that was submitted, however long that takes."""
        began = time.monotonic()
        requests, self.waiting = list(self.waiting.values()), {}
        ended, self.ended = self.ended, []
        try:
            finished = self._fresh([request for request in requests if not _begun(request)])
            finished += self._continued([request for request in requests if _begun(request)])
        except EngineError:
            # The caller may sync and collect again: nothing that it submitted is lost, and what was cut comes back too.
            self.waiting = {request.key: request for request in requests} | self.waiting
            self.ended = ended
            raise
        if finished:
            self.busy_seconds += time.monotonic() - began
            self.tokens += sum(len(end.completion.tokens) for end in finished)
        seconds = time.monotonic() - began
        return [*ended, *(replace(end, seconds=seconds) for end in finished)]

    def cut(self, keys: Sequence[str]) -> None:
        """Take these back, as far as they still wait."""
        for key in keys:
            if key in self.waiting:
                self.ended.append(Returned(key, self.waiting.pop(key).begun, "it was cut", NAME))

    def room(self) -> int:
        """As many as the caller likes: more requests in one call are sampled faster."""
        return 0 if self.version == STALE else max(0, self.most - len(self.waiting))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Hand the weights to the engine."""
        began = time.monotonic()
        self.engine.sync(weights, version)
        return SyncReport(version, seconds=time.monotonic() - began, engines=(NAME,))

    def rest(self) -> None:
        """Nothing: the engine keeps what it has."""

    def check(self) -> list[Recovery]:
        """Nothing: an engine in another process that died is started again by its next sync."""
        return []

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()

    def _fresh(self, requests: Sequence[Request]) -> list[Finished]:
        """Sample whole groups: a request's tokens depend on the size of its group, so those that are missing are drawn too."""
        calls: dict[tuple[SamplingParams, int], dict[str, list[Request]]] = {}
        for request in requests:
            of_call = calls.setdefault((_hashable(request.params), request.samples), {})
            of_call.setdefault(request.problem_id, []).append(request)
        finished = []
        for (params, n), of_problem in calls.items():
            problems = [Problem(name, (), of_group[0].prompt, None, ()) for name, of_group in of_problem.items()]
            groups = self.engine.generate(problems, n, params)
            for group, of_group in zip(groups, of_problem.values(), strict=True):
                finished += [Finished(request.key, group.completions[request.sample], NAME) for request in of_group]
        return finished

    def _continued(self, requests: Sequence[Request]) -> list[Finished]:
        """Sample behind what had begun: the tokens so far are part of the prompt that the engine reads."""
        calls: dict[SamplingParams, list[Request]] = {}
        for request in requests:
            assert request.begun is not None
            rest = request.params.max_tokens - len(request.begun.tokens)
            calls.setdefault(replace(_hashable(request.params), max_tokens=rest), []).append(request)
        finished = []
        for params, of_call in calls.items():
            problems = [
                Problem(f"{r.problem_id}#{r.sample}+{len(r.begun.tokens)}", (), [*r.prompt, *r.begun.tokens], None, ())
                for r in of_call
                if r.begun is not None
            ]
            groups = self.engine.generate(problems, 1, params)
            for request, group in zip(of_call, groups, strict=True):
                finished.append(Finished(request.key, joined(request.begun, group.completions[0]), NAME))
        return finished


def _begun(request: Request) -> bool:
    return request.begun is not None and bool(request.begun.tokens)


def _hashable(params: SamplingParams) -> SamplingParams:
    return replace(params, stop=tuple(params.stop))
