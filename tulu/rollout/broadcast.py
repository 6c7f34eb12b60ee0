"""The learner and every process that computes for its engines in one group, in which the learner sends and the others receive.

This is NCCL between GPUs and gloo between CPUs; nothing else differs. The group is made beside any other that a process has, and
whoever waits in it looks at a clock and at a note that says that it is broken: a broadcast that one process does not take part
in ends for all others within a moment, or at the deadline.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from tulu import deadlines
from tulu.config.cluster import in_one_line
from tulu.model.private_state import set_timeout
from tulu.rollout.sync import PARCEL_BYTES

BROKEN = "broken"
"""The key under which the group's store says that the group is broken."""
LONGER = 60.0
"""Seconds by which the connection's own deadline is later than ours, after which it would end the process."""
_abandoned: list[Any] = []
"""Groups that were broken. To destroy one waits for those who do not answer, so it is left to the end of the process."""


class Broken(Exception):
    """A broadcast did not reach everybody, and the group cannot be used any more."""


@dataclass(frozen=True)
class Joining:
    """What a process needs to join the group."""

    backend: str
    """nccl or gloo."""
    address: str
    port: int
    rank: int
    size: int
    seconds: float
    """Until everybody must have joined."""
    each: float
    """That one broadcast may take."""


class SyncGroup:
    """The group, seen by one of its processes. The first one, rank 0, is the learner."""

    def __init__(self, joining: Joining, device: torch.device, store: Any = None) -> None:
        """Join, and wait for the others. Raises Broken if they do not come in time."""
        self.device = device
        self.seconds = joining.each
        limit = timedelta(seconds=joining.seconds)
        try:
            self.store = store or distributed.TCPStore(joining.address, joining.port, timeout=limit)
            self.group = _connect(joining, distributed.PrefixStore("sync", self.store))
            # A connection of NCCL is made by the first message.
            self.broadcast(torch.zeros(1, dtype=torch.uint8, device=device), joining.seconds)
        except RuntimeError as error:
            raise Broken(f"the group of {joining.size} processes did not meet ({in_one_line(error)})") from error

    def broadcast(self, memory: Tensor, seconds: float, look: Callable[[], str | None] = lambda: None) -> None:
        """Send a row of bytes, or receive it, in messages of at most PARCEL_BYTES. Raises Broken if that takes too long.

        `look` is asked now and then, and may say why waiting is in vain.
        """
        deadline = deadlines.now() + seconds
        if self.group is None:
            raise Broken("this process has left the group")
        options = distributed.BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        try:
            for first in range(0, len(memory), PARCEL_BYTES):
                work = self.group.broadcast([memory[first : first + PARCEL_BYTES]], options)
                self._await(work, deadline, look)
        except RuntimeError as error:
            self._break(in_one_line(error))

    def close(self) -> None:
        """Leave. Every process must have received what was sent."""
        self.group = self.store = None

    def _await(self, work: Any, deadline: float, look: Callable[[], str | None]) -> None:
        pause, look_at = 0.0002, deadlines.now() + 0.05
        while not work.is_completed():
            now = deadlines.now()
            if now > deadline:
                self._break("it took too long")
            if now > look_at:
                look_at = now + 0.05
                if self.store.check([BROKEN]):
                    self._break("another process left")
                if reason := look():
                    self._break(reason)
            time.sleep(pause)
            pause = min(0.005, pause * 2)
        work.wait()

    def _break(self, reason: str) -> None:
        with suppress(RuntimeError):
            self.store.set(BROKEN, reason)
        group, self.group = self.group, None
        # NCCL's kernels wait on the GPU for ever unless they are told; a gloo group ends at its deadline.
        if group is not None and hasattr(group, "abort") and self.device.type == "cuda":
            group.abort()
        _abandoned.append((group, self.store))
        raise Broken(reason)


def gather_group(joining: Joining, device: torch.device, invite: Callable[[Joining], None]) -> SyncGroup:
    """In the learner: open the group, let `invite` call the others to it, and join. Raises Broken if they do not come in time.

    `joining.port` may be 0, which is any that is free; what `invite` gets names the one that was taken, and rank 0.
    """
    try:
        store = distributed.TCPStore(
            joining.address,
            joining.port,
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=joining.seconds),
        )
    except RuntimeError as error:
        raise Broken(f"no port at {joining.address} to meet at ({in_one_line(error)})") from error
    joining = replace(joining, port=store.port)
    invite(joining)
    return SyncGroup(joining, device, store)


def _connect(joining: Joining, store: Any) -> Any:
    if joining.backend == "gloo":
        return distributed.ProcessGroupGloo(store, joining.rank, joining.size, timedelta(seconds=joining.seconds))
    options = distributed.ProcessGroupNCCL.Options()
    # We end a broadcast ourselves, long before this would end the process.
    set_timeout(options, timedelta(seconds=joining.seconds + LONGER))
    return distributed.ProcessGroupNCCL(store, joining.rank, joining.size, options)
