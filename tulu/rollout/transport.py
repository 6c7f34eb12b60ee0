"""The ways from the learner's weights to the engines, of which a fleet takes the shortest that is there.

    off the shelf    every engine reads what the learner keeps anyway, in shared memory or in the object store: CPUs, any cluster
    Group            the learner sends to all engines at once: NCCL between GPUs; gloo in tests
    Card             an engine on the learner's own GPU opens the learner's memory there (CUDA IPC)

All of them bring the same pieces, told by the same names, shapes, dtypes and digests (rollout/pieces.py). An engine that did not
get a piece on the short way gets it off the shelf, so whatever breaks between GPUs costs time and not the run.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from tulu.rollout.broadcast import Broken, Joining, SyncGroup, gather_group
from tulu.rollout.card_memory import card_of, handles_of
from tulu.rollout.checksum import checksums
from tulu.rollout.fleet_calls import Call, wait_for_all
from tulu.rollout.fleet_member import Member
from tulu.rollout.pieces import Broadcast, OnCard, Piece, Shelf
from tulu.rollout.sync import Layout, TensorInfo, Weight

log = logging.getLogger("tulu")

Look = Callable[[], str | None]


class Transport(Protocol):
    """A short way to some of the engines."""

    name: str

    def open(self, members: Sequence[Member]) -> None:
        """Make ready for a sync with these engines. What fails here is logged; those engines are not taken then."""
        ...

    def takes(self, member: Member) -> bool:
        """Whether this engine gets its pieces on this way."""
        ...

    def load(self, group: Sequence[Weight]) -> None:
        """Pack the next piece."""
        ...

    def piece(self) -> Piece:
        """What one engine is told of the piece that was packed last."""
        ...

    def send(self, look: Look) -> None:
        """Send it, once the engines were told. Raises Broken if they do not all get it."""
        ...

    def settle(self) -> None:
        """The sync is over: give back the memory that it took, which training needs."""
        ...

    def close(self) -> None:
        """Let go of what was opened."""
        ...


class OffTheShelf:
    """No way of its own: the engines read what the learner keeps."""

    name = ""

    def open(self, members: Sequence[Member]) -> None:
        """Nothing is needed."""

    def takes(self, member: Member) -> bool:
        """No engine."""
        return False

    def load(self, group: Sequence[Weight]) -> None:
        """Nothing is packed twice."""

    def piece(self) -> Piece:
        """There is none."""
        raise NotImplementedError

    def send(self, look: Look) -> None:
        """Nothing is sent."""

    def settle(self) -> None:
        """No memory was taken."""

    def close(self) -> None:
        """Nothing was opened."""


class _Packed:
    """Pieces packed on the learner's device into two buffers in turn: one is filled while the other may still be read."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.buffers = [torch.empty(0, dtype=torch.uint8, device=device) for _ in range(2)]
        self.infos: dict[str, TensorInfo] = {}
        self.number = 0

    def load(self, group: Sequence[Weight]) -> None:
        """Pack a piece and take its digests where it lies."""
        self.number += 1
        layout = Layout.of({weight.name: weight.info() for weight in group})
        if len(self.buffers[self.number % 2]) < layout.size:
            self.buffers[self.number % 2] = torch.empty(0, dtype=torch.uint8, device=self.device)
            self.buffers[self.number % 2] = torch.empty(layout.size, dtype=torch.uint8, device=self.device)
        layout.fill(self.memory, group)
        rows = [self.memory[start : start + layout.infos[name].bytes] for name, start in layout.starts.items()]
        digests = checksums(rows)
        self.infos = {weight.name: weight.info(digest) for weight, digest in zip(group, digests, strict=True)}
        self.size = layout.size

    @property
    def memory(self) -> torch.Tensor:
        """The buffer of the piece that was packed last."""
        return self.buffers[self.number % 2]

    def drop(self) -> None:
        """Give the buffers back to the device, which needs them for training."""
        self.buffers = [torch.empty(0, dtype=torch.uint8, device=self.device) for _ in range(2)]


class Group:
    """One broadcast for all engines."""

    def __init__(self, backend: str, device: torch.device, address: str, meet: float, each: float, workers: int = 1) -> None:
        """`workers` processes compute for each engine, and each takes part.

        They have `meet` seconds to come together, and `each` broadcast may take so long.
        """
        self.name = backend.upper() if backend == "nccl" else backend
        self.joining = Joining(backend, address, 0, 0, 0, meet, each)
        self.workers = workers
        self.packed = _Packed(device)
        self.group: SyncGroup | None = None
        self.inside: set[tuple[str, int]] = set()
        """The engines in the group, each with how often it was restarted."""

    def open(self, members: Sequence[Member]) -> None:
        """Make the group again if other engines, or restarted ones, are to be in it."""
        inside = {(member.name, member.restarts) for member in members}
        if self.group is not None and inside == self.inside:
            return
        self.close()
        calls: list[Call] = []

        def invite(joining: Joining) -> None:
            for number, member in enumerate(members):
                own = replace(joining, rank=1 + number * self.workers)
                calls.append(
                    Call(member.name, "joining the group for weights", member.actor.meet.remote(own), 2 * joining.seconds)
                )

        try:
            joining = replace(self.joining, size=1 + self.workers * len(members))
            group = gather_group(joining, self.packed.device, invite)
            answers, lost = wait_for_all(calls)
            missing = [*map(str, lost.values()), *(f"{name}: {reason}" for name, reason in answers.items() if reason)]
            if missing:
                raise Broken("; ".join(missing))
            self.group, self.inside = group, inside
        except Broken as error:
            log.warning("%s between learner and engines does not work now (%s); the weights take the long way", self.name, error)

    def takes(self, member: Member) -> bool:
        """Those in the group, as long as it is whole."""
        return self.group is not None and (member.name, member.restarts) in self.inside

    def load(self, group: Sequence[Weight]) -> None:
        """Pack the next piece."""
        self.packed.load(group)

    def piece(self) -> Piece:
        """The engines wait for it in the group."""
        return Piece(Broadcast(self.packed.number), self.packed.infos)

    def send(self, look: Look) -> None:
        """One broadcast, in messages of at most 256 MB."""
        if self.group is None:
            raise Broken("there is no group")
        try:
            self.group.broadcast(self.packed.memory[: self.packed.size], self.joining.each, look)
        except Broken:
            self.group = None
            raise

    def settle(self) -> None:
        """Give the buffers back."""
        self.packed.drop()

    def close(self) -> None:
        """Leave the group."""
        group, self.group, self.inside = self.group, None, set()
        if group is not None:
            group.close()


class Card:
    """Memory of the learner's GPU, which the engines on that GPU open."""

    name = "CUDA IPC"

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.packed = _Packed(device)
        self.seconds = seconds
        self.same: set[tuple[str, int]] = set()
        self.asked: set[tuple[str, int]] = set()

    def open(self, members: Sequence[Member]) -> None:
        """Ask engines that were not asked yet for their GPUs."""
        new = [member for member in members if (member.name, member.restarts) not in self.asked]
        calls = [Call(member.name, "naming its GPUs", member.actor.cards.remote(), self.seconds) for member in new]
        answers, _ = wait_for_all(calls)
        own = card_of(self.packed.device)
        self.asked |= {(member.name, member.restarts) for member in new}
        self.same |= {(member.name, member.restarts) for member in new if set(answers.get(member.name, [""])) == {own}}

    def takes(self, member: Member) -> bool:
        """Those that compute on the learner's GPU and on no other."""
        return (member.name, member.restarts) in self.same

    def load(self, group: Sequence[Weight]) -> None:
        """Pack the next piece."""
        self.packed.load(group)

    def piece(self) -> Piece:
        """A handle for one engine."""
        return Piece(OnCard(handles_of(self.packed.memory)), self.packed.infos)

    def send(self, look: Look) -> None:
        """Nothing: the engine reads it where it is."""

    def settle(self) -> None:
        """Give the buffers back."""
        self.packed.drop()

    def close(self) -> None:
        """Nothing stays open."""


def choose(device: torch.device, cluster: bool, shared: bool, address: str, seconds: float, workers: int) -> Transport:
    """The shortest way there is from weights on this device to the engines of a fleet.

    `cluster`: the engines may be on other machines; `shared`: they use GPUs that learners use too.
    """
    if device.type != "cuda":
        return OffTheShelf()
    # NCCL refuses two processes of one group on one GPU.
    if shared and not cluster:
        return Card(device, seconds)
    return Group("nccl", device, address, seconds, seconds, workers)


def told_way(transport: Transport, shelf: Shelf) -> str:
    """How weights come, in words."""
    return f"{transport.name}, and {shelf.name} keeps them for an engine that is restarted" if transport.name else shelf.name
