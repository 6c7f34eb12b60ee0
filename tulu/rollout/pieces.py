"""Weights on their way in pieces: where the bytes of each lie, and a shelf for those that an engine may need again.

A piece is about 256 MB of tensors, one behind the other. What an engine is told of it, names, shapes, dtypes and digests, is the
same wherever its bytes lie:

    Objects     Ray's object store, from any machine to any machine
    Memory      memory that processes of one machine share; nothing is copied to be handed over
    Broadcast   nowhere yet: the learner sends it to a group of processes that wait for it (rollout/broadcast.py)
    OnCard      memory of a GPU that another process of the same GPU opens (rollout/card_memory.py)
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tulu.config.cluster import in_one_line
from tulu.errors import EngineError
from tulu.rollout.sync import Layout, Parcel, Slice, TensorInfo, Weight, all_digests, bytes_of, mapped


@dataclass(frozen=True)
class Objects:
    """References to slices in Ray's object store."""

    references: Sequence[Any]


@dataclass(frozen=True)
class Memory:
    """A file in memory, which a process of the same machine maps."""

    path: str


@dataclass(frozen=True)
class Broadcast:
    """What the group's first process sends next."""

    number: int


@dataclass(frozen=True)
class OnCard:
    """For each GPU, by its UUID, what another process needs to open the memory there."""

    handles: Mapping[str, bytes]


Place = Objects | Memory | Broadcast | OnCard


@dataclass
class Piece:
    """Some tensors and where they lie."""

    place: Place
    infos: dict[str, TensorInfo]
    memory: "SharedMemory | None" = field(default=None, repr=False)
    """What keeps the memory of this process alive as long as the piece; it does not travel."""

    def __reduce__(self) -> tuple[type["Piece"], tuple[Place, dict[str, TensorInfo]]]:
        return Piece, (self.place, self.infos)


Kept = list[Piece]
"""Whole weights that stay where they are, for an engine that has to be restarted."""


class SharedMemory:
    """Memory that a child process can open by `path`.

    It needs no room in /dev/shm, which containers often keep at 64 MB, and is freed when nobody has it mapped any more, even if
    this process is killed. Raises EngineError if there is no memory.
    """

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self.handle = os.memfd_create("tulu-weights")
        try:
            os.posix_fallocate(self.handle, 0, self.size)
        except OSError as error:
            os.close(self.handle)
            raise EngineError(f"no memory for {size / 1e6:.0f} MB of weights on their way to vLLM ({error.strerror})") from error
        self._free = weakref.finalize(self, os.close, self.handle)
        self.path = f"/proc/{os.getpid()}/fd/{self.handle}"
        self.bytes: NDArray[np.uint8] = mapped(self.path, self.size)

    def write(self, layout: Layout, slices: Sequence[Slice]) -> None:
        """Write bytes of tensors to their places."""
        for name, first, part in slices:
            start = layout.starts[name] + first
            self.bytes[start : start + len(part)] = part

    def close(self) -> None:
        """Let it go, as far as this process is concerned."""
        self._free()
        del self.bytes


class Shelf(Protocol):
    """Where the learner keeps the weights of the last sync, once, in the memory of the machine."""

    name: str

    def clear(self, former: Kept, in_use: bool) -> None:
        """New weights are about to come, and the former ones may go; those that an engine reads still, when it has done so."""
        ...

    def lay(self, group: Sequence[Weight]) -> Piece:
        """Keep these. Raises EngineError if there is no room."""
        ...

    def settle(self) -> None:
        """All new weights are there: what is left of the former ones goes."""
        ...


class MemoryShelf:
    """Memory that the engines of this machine share with the learner: one copy serves all of them."""

    name = "shared memory"

    def __init__(self) -> None:
        self.former: list[SharedMemory] = []

    def clear(self, former: Kept, in_use: bool) -> None:
        """Write into the memory of the former weights, which is faster than new memory, unless somebody reads it."""
        memories = [piece.memory for piece in former if piece.memory is not None]
        self.former = [] if in_use else memories
        # A piece that an engine reads keeps its own memory until it is forgotten.
        for piece in former if not in_use else ():
            piece.memory = None
        former.clear()

    def lay(self, group: Sequence[Weight]) -> Piece:
        """Copy these into shared memory, and take their digests there."""
        layout = Layout.of({weight.name: weight.info() for weight in group})
        memory = self._memory(layout.size)
        layout.fill(torch.from_numpy(memory.bytes), group)
        digests = layout.digests(memory.bytes)
        return Piece(Memory(memory.path), {weight.name: weight.info(digests[weight.name]) for weight in group}, memory)

    def settle(self) -> None:
        """Free what the new weights did not need."""
        while self.former:
            self.former.pop().close()

    def _memory(self, size: int) -> SharedMemory:
        # The pieces of two syncs are alike, so the first one fits the first one.
        for place, memory in enumerate(self.former):
            if memory.size == max(1, size):
                return self.former.pop(place)
        if self.former:
            self.former.pop(0).close()
        return SharedMemory(size)


class ObjectShelf:
    """Ray's object store, from which engines on other machines read as well."""

    name = "the object store"

    def __init__(self) -> None:
        self.former: Kept = []

    def clear(self, former: Kept, in_use: bool) -> None:
        """Let one former piece go for each that comes; Ray counts who reads it."""
        self.former = list(former)
        former.clear()

    def lay(self, group: Sequence[Weight]) -> Piece:
        """Put these into the object store. Raises EngineError if it has no room for them."""
        del self.former[:1]
        data = {weight.name: bytes_of(weight.tensor.to("cpu")).numpy() for weight in group}
        digests = all_digests(data)
        parcel = Parcel({weight.name: weight.info(digests[weight.name]) for weight in group}, data)
        return Piece(Objects(put(parcel)), parcel.infos)

    def settle(self) -> None:
        """Free what is left."""
        self.former.clear()


def put(parcel: Parcel) -> list[Any]:
    """Lay a parcel into the object store. Raises EngineError if it has no room for it."""
    import ray
    from ray import exceptions

    try:
        return [ray.put(slices) for slices in parcel.slices()]
    except exceptions.RayError as error:
        size = sum(info.bytes for info in parcel.infos.values()) / 1e6
        raise EngineError(
            f"Ray's object store has no room for {size:.0f} MB of weights ({in_one_line(error)})\n"
            "It must hold the weights once, and two parcels of 256 MB: free memory in /dev/shm and disk in Ray's folder, "
            "or start the cluster with a larger --object-store-memory."
        ) from error
