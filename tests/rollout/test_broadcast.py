"""Weights sent in a group of real processes: they arrive by their bits, and who dies or stops keeps nobody waiting."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import forked
from tests.rollout.group_member import SIZES, layout_of, receive
from tulu.rollout import broadcast
from tulu.rollout.broadcast import Broken, Joining, SyncGroup, gather_group
from tulu.rollout.checksum import checksums

CPU = torch.device("cpu")
COMING = 120.0


class Others:
    """The receiving processes of a group."""

    def __init__(self) -> None:
        self.context = forked.context()
        self.processes: list[Any] = []
        self.ears: list[Any] = []

    def group(self, seconds: float, *whats: str) -> SyncGroup:
        def invite(joining: Joining) -> None:
            for rank, what in enumerate(whats, start=1):
                ear, say = self.context.Pipe(duplex=False)
                process = self.context.Process(target=receive, args=(say, replace(joining, rank=rank), what))
                process.start()
                say.close()
                self.processes.append(process)
                self.ears.append(ear)

        # What a process waits for in a broadcast is as long as it waits for the others to come.
        return gather_group(Joining("gloo", "127.0.0.1", 0, 0, 1 + len(whats), seconds, COMING), CPU, invite)

    def says(self, place: int) -> Any:
        assert self.ears[place].poll(COMING)
        return self.ears[place].recv()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture
def others() -> Iterator[Others]:
    made = Others()
    yield made
    made.end()


def pieces() -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(3)
    return [torch.randint(0, 256, (layout_of(sizes).size,), dtype=torch.uint8, generator=made) for sizes in SIZES]


def digests_of(place: int) -> list[str]:
    return checksums([tensor for _, tensor in layout_of(SIZES[place]).tensors(pieces()[place])])


def test_every_process_holds_the_same_bits(others: Others) -> None:
    group = others.group(COMING, "", "")
    for piece in pieces():
        group.broadcast(piece, COMING)
    for place in (0, 1):
        assert [others.says(place), others.says(place)] == [digests_of(0), digests_of(1)]
    group.close()


def test_a_process_that_dies_breaks_the_broadcast_at_once_for_all(others: Others) -> None:
    group = others.group(COMING, "die", "")
    first, second = pieces()
    group.broadcast(first, COMING)
    others.processes[0].join(COMING)
    began = time.monotonic()

    def send_on() -> None:
        # A small message may leave before the end of the other process is known; one of the next does not.
        for _ in range(100):
            group.broadcast(second, COMING, lambda: "engine-1 died")

    with pytest.raises(Broken):
        send_on()
    # The other one got the piece or was told that the group is broken; it does not wait for its deadline.
    others.says(1)
    last = others.says(1)
    assert last == digests_of(1) or last.startswith("broken after")
    assert time.monotonic() - began < COMING / 2


def test_a_process_that_stops_keeps_nobody_beyond_the_deadline(others: Others) -> None:
    group = others.group(COMING, "stop", "")
    first, _ = pieces()
    group.broadcast(first, COMING)
    large = torch.zeros(64 << 20, dtype=torch.uint8)
    began = time.monotonic()
    with pytest.raises(Broken, match="took too long"):
        group.broadcast(large, 2)
    assert 2 <= time.monotonic() - began < COMING / 2


def test_who_does_not_come_is_told_within_the_time() -> None:
    began = time.monotonic()
    with pytest.raises(Broken, match="the group of 2 processes did not meet"):
        gather_group(Joining("gloo", "127.0.0.1", 0, 0, 2, 1.5, 1.5), CPU, lambda joining: None)
    assert time.monotonic() - began < COMING / 2


def test_messages_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """No message is longer than PARCEL_BYTES, however large a tensor is."""
    monkeypatch.setattr(broadcast, "PARCEL_BYTES", 100)
    sent: list[int] = []

    class Work:
        def is_completed(self) -> bool:
            return True

        def wait(self) -> None:
            pass

    class Wire:
        def broadcast(self, tensors: list[torch.Tensor], options: object) -> Work:
            sent.append(len(tensors[0]))
            return Work()

    group = SyncGroup.__new__(SyncGroup)
    group.group, group.device = Wire(), CPU
    group.broadcast(torch.zeros(250, dtype=torch.uint8), 1)
    assert sent == [100, 100, 50]
