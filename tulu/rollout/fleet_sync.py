"""New weights for all engines of a fleet at once: piece by piece, on the shortest way there is, each proved by its checksums."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.broadcast import Broken
from tulu.rollout.engine import STALE
from tulu.rollout.fleet import SyncReport
from tulu.rollout.fleet_calls import Call, EngineLost, wait_for_all
from tulu.rollout.fleet_member import Member
from tulu.rollout.fleet_replica import Taken
from tulu.rollout.pieces import Kept, Piece, Shelf
from tulu.rollout.sync import TensorInfo, Weight, grouped
from tulu.rollout.transport import Transport

log = logging.getLogger("tulu")


@dataclass(frozen=True)
class OnTheWay:
    """One piece that the engines were told of."""

    calls: Sequence[Call]
    told: Mapping[str, Mapping[str, TensorInfo]]
    """What each engine was told: digests are of another kind on another way."""
    kept: Piece
    """The same piece on the shelf."""


@dataclass
class Delivery:
    """One sync. Engines that fail on the way are left out; those that are left hold the weights at the end.

    Where none is left, the weights go on to the shelf alone, for those that come back: what one process dies of is no fault of
    the others, and the only engine of a run is one of its processes.
    """

    members: list[Member]
    version: int
    seconds: float
    """That each step of an engine may take."""
    lose: Callable[[Member, str, str], Any]
    """Called with an engine that failed, why, and the cause as `EngineLost` has it."""
    transport: Transport
    shelf: Shelf
    kept: Kept = field(default_factory=list)
    """The pieces on the shelf so far."""
    parts: dict[str, float] = field(default_factory=dict)

    def run(self, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype) -> SyncReport:
        """Send the weights.

        While the engines load one piece the learner packs the next, and never has a second copy of all of them but the one on
        the shelf. Raises EngineError if an engine refuses the weights, or they arrive corrupted twice.
        """
        began = time.monotonic()
        # Requests that are still on their way would find an engine that is paused, and be refused.
        self._answers([call for member in self.members for call in member.sent])
        for member in self.members:
            member.status, member.sent = "syncing", []
        self.transport.open(self.members)
        paused = self._calls("pausing", lambda member: member.actor.begin.remote())
        loading: deque[OnTheWay] = deque()
        with ThreadPoolExecutor(1, "tulu-shelf") as shelving:
            for group in self._gathered(grouped(weights, dtype)):
                if not self.kept:
                    self.parts["pause"] = max(self._answers(paused).values(), default=0.0)
                loading.append(self._sent(group, shelving))
                if len(loading) == 2:
                    self._taken(loading.popleft())
        if not self.kept:
            raise EngineError(f"there are no weights of version {self.version} to send")
        while loading:
            self._taken(loading.popleft())
        self.shelf.settle()
        self.transport.settle()
        resumed = self._calls("resuming", lambda member: member.actor.finish.remote(self.version))
        self.parts["resume"] = max(self._answers(resumed).values(), default=0.0)
        infos = [info for piece in self.kept for info in piece.infos.values()]
        size = sum(info.bytes for info in infos)
        names = [member.name for member in self.members]
        if not names:
            log.warning("no engine took the weights of version %d; they wait for the first that is back", self.version)
        way = self.transport.name or self.shelf.name
        return SyncReport(self.version, len(infos), size, time.monotonic() - began, self.parts, names, way)

    def _gathered(self, groups: Iterable[list[Weight]]) -> Iterator[list[Weight]]:
        """The groups; the time until each is there counts as `gather`: merging adapters, bringing shards together, casting."""
        source = iter(groups)
        while True:
            mark = time.monotonic()
            group = next(source, None)
            self._count("gather", mark)
            if group is None:
                return
            yield group

    def _sent(self, group: Sequence[Weight], shelving: ThreadPoolExecutor) -> "OnTheWay":
        """Bring one group to every engine, and onto the shelf."""
        mark = time.monotonic()
        direct = [member for member in self.members if self.transport.takes(member)]
        told: dict[str, Mapping[str, TensorInfo]] = {}
        calls: list[Call] = []
        if direct:
            self.transport.load(group)
            pieces = {member.name: self.transport.piece() for member in direct}
            mark = self._count("pack", mark)
            told = {name: piece.infos for name, piece in pieces.items()}
            calls = self._calls("taking weights", lambda member: member.actor.take.remote(pieces[member.name]), direct)
        laid = shelving.submit(self.shelf.lay, group)
        if direct:
            self._send(calls)
            mark = self._count("send", mark)
        kept = laid.result()
        self._count("shelve", mark)
        self.kept.append(kept)
        others = [member for member in self.members if member not in direct]
        told |= {member.name: kept.infos for member in others}
        calls += self._calls("taking weights", lambda member: member.actor.take.remote(kept), others)
        return OnTheWay(calls, told, kept)

    def _send(self, calls: Sequence[Call]) -> None:
        try:
            self.transport.send(lambda: in_vain(calls))
        except Broken as error:
            shelf = self.shelf.name
            log.warning("%s broke off (%s); the rest of the weights goes through %s", self.transport.name, error, shelf)
            self.transport.close()

    def _calls(self, what: str, call: Callable[[Member], Any], members: Sequence[Member] | None = None) -> list[Call]:
        calls = []
        for member in list(self.members if members is None else members):
            try:
                calls.append(Call(member.name, what, call(member), self.seconds))
            except Exception as error:  # noqa: BLE001
                self._lost(EngineLost(member.name, f"it cannot be reached ({type(error).__name__}: {error})"))
        return calls

    def _answers(self, calls: Sequence[Call]) -> dict[str, Any]:
        answers, lost = wait_for_all(calls)
        for error in lost.values():
            self._lost(error)
        return answers

    def _lost(self, error: EngineLost) -> None:
        if error.refused:
            raise EngineError(f"{error.engine}: {error.reason}")
        for member in [member for member in self.members if member.name == error.engine]:
            self.members.remove(member)
            self.lose(member, error.reason, error.cause)

    def _taken(self, sent: "OnTheWay") -> None:
        """Compare what the engines hold with what the learner sent; what was spoilt on its way comes again, off the shelf."""
        answers = self._answers(sent.calls)
        spoilt = spoilt_in(answers, sent.told)
        if spoilt:
            log.warning("%s; it is sent again", "; ".join(spoilt.values()))
            late = [member for member in self.members if member.name in spoilt]
            repeated = self._answers(self._calls("taking weights", lambda member: member.actor.take.remote(sent.kept), late))
            if still := spoilt_in(repeated, dict.fromkeys(repeated, sent.kept.infos)):
                raise EngineError(f"weight sync refused: {'; '.join(still.values())}, twice; the memory or the network is broken")
            answers = {**answers, **repeated}
        for part in ("receive", "verify", "load"):
            slowest = max((taken.seconds.get(part, 0.0) for taken in answers.values()), default=0.0)
            self.parts[part] = self.parts.get(part, 0.0) + slowest

    def _count(self, part: str, since: float) -> float:
        """Add the time since a mark to a part; returns the next mark."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - since
        return now


def put_to_sleep(members: Sequence[Member], seconds: float) -> dict[str, EngineLost]:
    """Let engines give their memory back; returns those that failed to."""
    # Requests that are still on their way would find an engine that sleeps, and be refused.
    _, lost = wait_for_all([call for member in members for call in member.sent])
    calls = []
    for member in members:
        member.status, member.version, member.sent = "asleep", STALE, []
        if member.name not in lost:
            calls.append(Call(member.name, "giving its memory back", member.actor.rest.remote(), seconds))
    return lost | wait_for_all(calls)[1]


def in_vain(calls: Iterable[Call]) -> str | None:
    """Why one of the engines that were told of a piece will not get it, if so."""
    for call in calls:
        if call.answered:
            try:
                taken: Taken = call.answer()
            except EngineLost as error:
                return str(error)
            if taken.missed:
                return f"{call.engine}: {taken.missed}"
    return None


def spoilt_in(answers: Mapping[str, Taken], told: Mapping[str, Mapping[str, TensorInfo]]) -> dict[str, str]:
    """For each engine that holds something else than what it was told, what."""
    spoilt = {engine: f"a piece did not reach {engine} ({taken.missed})" for engine, taken in answers.items() if taken.missed}
    for engine, taken in answers.items():
        for name, info in told[engine].items():
            if engine not in spoilt and taken.digests.get(name) != info.digest:
                spoilt[engine] = f"{name} is corrupted in {engine}: its digest is not the learner's"
    return spoilt
