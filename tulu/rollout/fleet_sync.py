"""New weights for all engines of a fleet at once: parcel by parcel through Ray's object store, each proved by its checksums."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tulu.errors import EngineError
from tulu.rollout.fleet import SyncReport
from tulu.rollout.fleet_calls import Call, EngineLost, wait_for_all
from tulu.rollout.fleet_member import Member
from tulu.rollout.fleet_replica import Taken
from tulu.rollout.sync import Parcel, TensorInfo

log = logging.getLogger("tulu")

Kept = list[tuple[list[Any], dict[str, TensorInfo]]]
"""The weights in the object store: for each parcel the references of its slices, and its tensors."""


@dataclass
class Delivery:
    """One sync. Engines that fail on the way are left out; those that are left hold the weights at the end."""

    members: list[Member]
    version: int
    seconds: float
    """That each step of an engine may take."""
    lose: Callable[[Member, str], Any]
    """Called with an engine that failed, and why."""
    kept: Kept = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)

    def run(self, parcels: Iterable[Parcel], former: Kept) -> SyncReport:
        """Send the weights. `former` are those of the last sync, which are let go piece by piece.

        While the engines load one parcel they receive the next, and the learner packs the one behind it; so three of them are in
        memory beside what is kept for an engine that has to be restarted. Raises EngineError if no engine holds the weights at
        the end.
        """
        began = time.monotonic()
        # Requests that are still on their way would find an engine that is paused, and be refused.
        self._answers([call for member in self.members for call in member.sent])
        for member in self.members:
            member.status, member.sent = "syncing", []
        paused = self._calls("pausing", lambda member: member.actor.begin.remote())
        loading: deque[tuple[int, list[Call]]] = deque()
        for parcel, references in self._packed(parcels):
            if not self.kept:
                self.parts["pause"] = max(self._answers(paused).values())
            del former[:1]
            loading.append((len(self.kept), self._send(references, parcel.infos)))
            self.kept.append((references, parcel.infos))
            if len(loading) == 2:
                self._taken(*loading.popleft())
        former.clear()
        if not self.kept:
            raise EngineError(f"there are no weights of version {self.version} to send")
        while loading:
            self._taken(*loading.popleft())
        resumed = self._calls("resuming", lambda member: member.actor.finish.remote(self.version))
        self.parts["resume"] = max(self._answers(resumed).values())
        infos = [info for _, infos in self.kept for info in infos.values()]
        size = sum(info.bytes for info in infos)
        names = [member.name for member in self.members]
        return SyncReport(self.version, len(infos), size, time.monotonic() - began, self.parts, names)

    def _packed(self, parcels: Iterable[Parcel]) -> Iterator[tuple[Parcel, list[Any]]]:
        """Each parcel and its references in the object store."""
        source = iter(parcels)
        while True:
            mark = time.monotonic()
            parcel = next(source, None)
            mark = self._count("pack", mark)
            if parcel is None:
                return
            references = put(parcel)
            self._count("send", mark)
            yield parcel, references

    def _calls(self, what: str, call: Callable[[Member], Any]) -> list[Call]:
        calls = []
        for member in list(self.members):
            try:
                calls.append(Call(member.name, what, call(member), self.seconds))
            except Exception as error:  # noqa: BLE001
                self._lost(EngineLost(member.name, f"it cannot be reached ({type(error).__name__}: {error})"))
        return calls

    def _send(self, references: list[Any], infos: Mapping[str, TensorInfo]) -> list[Call]:
        # References in a list reach the engine as they are; Ray would replace each one that is an argument by its contents.
        return self._calls("loading weights", lambda member: member.actor.take.remote(references, infos))

    def _answers(self, calls: Sequence[Call]) -> dict[str, Any]:
        answers, lost = wait_for_all(calls)
        for error in lost.values():
            self._lost(error)
        if not self.members:
            raise EngineError(f"no engine took the weights of version {self.version}: {'; '.join(map(str, lost.values()))}")
        return answers

    def _lost(self, error: EngineLost) -> None:
        if error.refused:
            raise EngineError(f"{error.engine}: {error.reason}")
        for member in [member for member in self.members if member.name == error.engine]:
            self.members.remove(member)
            self.lose(member, error.reason)

    def _taken(self, index: int, calls: Sequence[Call]) -> None:
        """Compare what the engines hold with what the learner sent; a parcel that was spoilt on its way is sent again."""
        answers = self._answers(calls)
        references, infos = self.kept[index]
        spoilt = self._spoilt(infos, answers)
        if spoilt:
            log.warning("%s; the parcel is sent again", "; ".join(spoilt.values()))
            repeated = self._answers(
                [
                    Call(member.name, "loading weights", member.actor.take.remote(references, infos), self.seconds)
                    for member in self.members
                    if member.name in spoilt
                ]
            )
            if still := self._spoilt(infos, repeated):
                raise EngineError(f"weight sync refused: {'; '.join(still.values())}, twice; the memory or the network is broken")
            answers = {**answers, **repeated}
        for part in ("receive", "verify", "load"):
            slowest = max((taken.seconds.get(part, 0.0) for taken in answers.values()), default=0.0)
            self.parts[part] = self.parts.get(part, 0.0) + slowest

    def _spoilt(self, infos: Mapping[str, TensorInfo], answers: Mapping[str, Taken]) -> dict[str, str]:
        """For each engine that holds something else than what was sent, which tensor."""
        return {
            engine: f"{name} is corrupted in {engine}: its digest is not the learner's"
            for engine, taken in answers.items()
            for name, info in infos.items()
            if taken.digests.get(name) != info.digest
        }

    def _count(self, part: str, since: float) -> float:
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - since
        return now


def put(parcel: Parcel) -> list[Any]:
    """Lay a parcel into the object store. Raises EngineError if it has no room for it."""
    import ray
    from ray import exceptions

    try:
        return [ray.put(slices) for slices in parcel.slices()]
    except exceptions.RayError as error:
        size = sum(info.bytes for info in parcel.infos.values()) / 1e6
        text = str(error).strip().splitlines()
        raise EngineError(
            f"Ray's object store has no room for {size:.0f} MB of weights ({text[0] if text else type(error).__name__})\n"
            "It must hold the weights once, and two parcels of 256 MB: free memory in /dev/shm and disk in Ray's folder, "
            "or start the cluster with a larger --object-store-memory."
        ) from error
