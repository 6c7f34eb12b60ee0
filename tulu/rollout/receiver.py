"""The end of a sync in the process that computes: it opens the memory of a piece, wherever that is, and looks at what is in it.

It knows nothing of vLLM, so that it is tested without.
"""

import mmap
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tulu.rollout.broadcast import Broken, Joining, SyncGroup
from tulu.rollout.card_memory import opened
from tulu.rollout.checksum import MARK, checksums
from tulu.rollout.pieces import Broadcast, Memory, OnCard, Place
from tulu.rollout.sync import Layout, all_digests


@dataclass
class Receiver:
    """One for each process that computes."""

    device: torch.device
    group: SyncGroup | None = None
    files: dict[str, tuple[int, mmap.mmap]] = field(default_factory=dict)
    """What is mapped, by path: the number of the file, and its mapping. To map it anew takes as long as to read it."""
    in_use: dict[str, list["weakref.ref[NDArray[np.uint8]]"]] = field(default_factory=dict)
    """Whether tensors still lie in a file, by path."""

    def join(self, joining: Joining) -> None:
        """Join the group in which the learner sends weights, after leaving the one before. Raises Broken if it does not meet."""
        self.leave()
        self.group = SyncGroup(joining, self.device)

    def leave(self) -> None:
        """Leave the group, if there is one."""
        group, self.group = self.group, None
        if group is not None:
            group.close()

    def memory(self, place: Place, layout: Layout) -> Tensor:
        """The bytes of a piece as a row on this process's device or, where it lies in memory of the machine, there.

        Raises Broken if a broadcast does not arrive.
        """
        if isinstance(place, Memory):
            return torch.from_numpy(self._mapped(place.path, layout.size))
        if isinstance(place, OnCard):
            # The learner writes the next piece into the same memory, and an engine may keep tensors until their layer is whole.
            return opened(place.handles, self.device)[: layout.size].clone()
        if isinstance(place, Broadcast):
            if self.group is None:
                raise Broken("this process has not joined the group in which the weights are sent")
            memory = torch.empty(layout.size, dtype=torch.uint8, device=self.device)
            try:
                self.group.broadcast(memory, self.group.seconds)
            except Broken:
                self.leave()
                raise
            return memory
        raise TypeError(f"{place} is not a place that a worker opens")

    def free(self) -> list[str]:
        """The files in memory that were opened and that no tensor lies in any more; each is named once."""
        done = [path for path, arrays in self.in_use.items() if all(array() is None for array in arrays)]
        for path in done:
            del self.in_use[path]
        return done

    def _mapped(self, path: str, size: int) -> NDArray[np.uint8]:
        for known, (number, _) in list(self.files.items()):
            if known != path and _number(known) != number:
                del self.files[known]
        number = _number(path)
        if path not in self.files or self.files[path][0] != number or len(self.files[path][1]) < size:
            with open(path, "r+b", buffering=0) as file:
                self.files[path] = (number, mmap.mmap(file.fileno(), size, mmap.MAP_SHARED | mmap.MAP_POPULATE))
        array = np.frombuffer(self.files[path][1], np.uint8, size)
        # Every tensor that lies in it refers to this array.
        self.in_use.setdefault(path, []).append(weakref.ref(array))
        return array


def digests(memory: Tensor, layout: Layout) -> dict[str, str]:
    """The digest of each tensor as it lies in this memory, of the kind that the learner took."""
    rows = {name: memory[start : start + layout.infos[name].bytes] for name, start in layout.starts.items()}
    words = [name for name, info in layout.infos.items() if info.digest.startswith(MARK)]
    found = dict(zip(words, checksums([rows[name] for name in words]), strict=True))
    others = {name: row.cpu().numpy() for name, row in rows.items() if name not in found}
    return {**found, **all_digests(others)}


def _number(path: str) -> int:
    """The number of a file in memory, which another one behind the same path does not have; -1 if there is none."""
    with suppress(OSError):
        return os.stat(path).st_ino
    return -1
