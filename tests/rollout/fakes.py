"""Engines and graders that are fast and know no model, with which the stream of rollouts is tested."""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tulu.config.schema import Rlvr
from tulu.rollout.engine import STALE
from tulu.rollout.fleet import Ended, EngineState, Finished, Recovery, Request, Returned, SyncReport
from tulu.rollout.sampling import stable_seed
from tulu.types import Completion, Problem, Verdict

Length = Callable[[Request], int]


def heavy_tailed(request: Request) -> int:
    """A length with a Pareto tail, so that few completions hold most tokens; it depends on the request's seed alone."""
    uniform = (stable_seed("length", request.seed if request.begun is None else request.key) % 10**6 + 1) / (10**6 + 1)
    return max(1, min(request.params.max_tokens, int(4 * uniform ** (-1 / 1.1))))


@dataclass
class Running:
    """A request that a fake engine works on."""

    request: Request
    engine: str
    length: float
    began: float
    versions: list[tuple[int, int]]
    before: list[int] = field(default_factory=list)
    """Tokens that were sampled with the weights before the present ones, or by another engine."""

    def done(self, now: float, token_seconds: float) -> float:
        """Tokens that it has at this time."""
        if self.length == math.inf:
            return 0
        return self.length if token_seconds == 0 else min(self.length, int((now - self.began) / token_seconds))


class Looks:
    """A clock on which time passes as it is looked at, so that a process which a busy machine keeps waiting misses nothing.

    Who waits looks every half a millisecond, so that on an idle machine it is about as fast as any other.
    """

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        self.at += 0.0005
        return self.at


class Hands:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


class FakeFleet:
    """Engines that work in the background: every request takes a time in proportion to its length.

    The tokens are a function of the request's seed and of the weights that they are sampled with.
    """

    def __init__(
        self, length: Length = heavy_tailed, engines: int = 2, slots: int = 8, token_seconds: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:  # fmt: skip
        self.length, self.slots, self.token_seconds = length, slots, token_seconds
        self.clock = clock or Looks()
        """By which tokens are sampled."""
        self.names = [f"fake-{number}" for number in range(engines)]
        self.version = STALE
        self.rested = 0
        self.digests: dict[int, int] = {}
        """A number for the weights of each version."""
        self.running: dict[str, Running] = {}
        self.ended: list[Ended] = []
        self.submitted: list[Request] = []
        self.deaf: Callable[[Request], bool] = lambda _: False
        """Which requests are never answered."""
        self.closed = False

    def states(self) -> list[EngineState]:
        counts = {name: sum(one.engine == name for one in self.running.values()) for name in self.names}
        return [EngineState(name, self.version, "ready", count) for name, count in counts.items()]

    def submit(self, requests: Sequence[Request]) -> None:
        assert self.version != STALE
        for request in requests:
            assert request.key not in self.running, f"{request.key} was submitted twice"
            self.submitted.append(request)
            engine = min(self.states(), key=lambda state: state.running).name
            length = math.inf if self.deaf(request) else self.length(request)
            begun = request.begun
            before, spans = ([], []) if begun is None else (list(begun.tokens), [*begun.versions])
            if not spans or spans[-1][1] != self.version:
                spans.append((len(before), self.version))
            began = self.clock() - len(before) * self.token_seconds
            self.running[request.key] = Running(request, engine, length, began, spans, before)

    def collect(self, timeout: float) -> list[Ended]:
        until = time.monotonic() + timeout
        while True:
            now = self.clock()
            for key, one in list(self.running.items()):
                if one.done(now, self.token_seconds) >= one.length:
                    self._finish(key)
            if self.ended or time.monotonic() >= until:
                ended, self.ended = self.ended, []
                return ended
            time.sleep(0.0005)

    def _finish(self, key: str) -> None:
        one = self.running.pop(key)
        self.ended.append(Finished(key, self._completion(one, one.length), one.engine))

    def _completion(self, one: Running, length: float) -> Completion:
        tokens = [*one.before]
        while len(tokens) < length:
            tokens.append(stable_seed(one.request.seed, len(tokens), self.digests[one.versions[-1][1]]) % 100)
        logps = [-1.0 - token / 64 for token in tokens]
        finish: Any = "length" if length >= one.request.params.max_tokens else "stop"
        return Completion(tokens, [True] * len(tokens), logps, finish, one.versions)

    def _advance(self, one: Running) -> None:
        """Fix the tokens that a request has now, since those that follow are sampled with other weights."""
        done = one.length if self.token_seconds == 0 else one.done(self.clock(), self.token_seconds)
        if done < one.length:
            one.before = list(self._completion(one, max(done, len(one.before))).tokens)

    def cut(self, keys: Sequence[str]) -> None:
        for key in keys:
            if (one := self.running.get(key)) is None:
                continue
            if one.done(self.clock(), self.token_seconds) >= one.length:
                # What has ended is not cut, even if nobody has collected it yet.
                self._finish(key)
            else:
                self._return(key, "it was cut")

    def kill(self, engine: str) -> None:
        """An engine dies: what it worked on is lost, and it is back at once."""
        for key in [key for key, one in self.running.items() if one.engine == engine]:
            self._return(key, "its process died", lost=True)

    def _return(self, key: str, reason: str, lost: bool = False) -> None:
        one = self.running.pop(key)
        if one.length != math.inf:
            self._advance(one)
        begun = (
            one.request.begun
            if lost or not one.before
            else Completion(
                one.before, [True] * len(one.before), [-1.0 - token / 64 for token in one.before], "data", one.versions
            )
        )
        self.ended.append(Returned(key, begun, reason, one.engine))

    def room(self) -> int:
        return max(0, self.slots * len(self.names) - len(self.running))

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Take new weights; what runs goes on with them."""
        content = hashlib.blake2b(digest_size=8)
        for name, tensor in weights:
            content.update(name.encode() + tensor.detach().numpy().tobytes())
        if self.version != STALE:
            for one in self.running.values():
                if one.length != math.inf:
                    self._advance(one)
        self.version = version
        self.digests[version] = int.from_bytes(content.digest(), "big")
        for one in self.running.values():
            if one.versions[-1][1] != version:
                if one.versions[-1][0] == len(one.before):
                    one.versions = one.versions[:-1]
                one.versions = [*one.versions, (len(one.before), version)]
        return SyncReport(version)

    def rest(self) -> None:
        self.rested += 1

    def check(self) -> list[Recovery]:
        return []

    def close(self) -> None:
        self.closed = True


class Numbers:
    """A tokenizer whose text is its token ids."""

    def decode(self, tokens: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, tokens))


class ByPosition:
    """A grader by which two problems of three teach something, whatever was sampled: the first completion alone is right.

    `asked` counts the completions that it graded.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.asked = 0

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        self.asked += len(items)
        places: dict[str, int] = {}
        verdicts = []
        for _, problem in items:
            place = places[problem.id] = places.get(problem.id, -1) + 1
            verdicts.append(Verdict(float(place % self.samples == 0 and teaches(problem.id))))
        return verdicts


def teaches(name: str) -> bool:
    """Whether the problem of that name has completions of different rewards."""
    return int(name.removeprefix("p")) % 3 != 0


def make_problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", (), [i + 1], None, ("exact",)) for i in range(count)]


def rlvr_stage(**fields: Any) -> Rlvr:
    """The section of a small run."""
    lengths = {"max_prompt": 8, "max_tokens": 64, "max_length": 72}
    given = {"prompts": 4, "samples": 2, "steps": 1, "reward_scale": 1.0, "learning_rate": 1e-3, "seed": 0, "precision": "fp32"}
    section = {"data": {"name": "sums:train", "count": 10}, **lengths, **given, **fields}
    return Rlvr.model_validate({"batch": section["prompts"] * section["samples"], **section})
