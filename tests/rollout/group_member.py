"""One process of a group in which weights are sent, for tests: it receives pieces, and says what it holds."""

import os
import signal
import time
from multiprocessing.connection import Connection

import torch

from tulu.rollout.broadcast import Broken, Joining
from tulu.rollout.checksum import checksums
from tulu.rollout.pieces import Broadcast
from tulu.rollout.receiver import Receiver
from tulu.rollout.sync import Layout, TensorInfo

SIZES = [[5, 64, 1], [300, 7]]
"""Bytes of the tensors of each piece."""


def layout_of(sizes: list[int]) -> Layout:
    return Layout.of({f"w{place}": TensorInfo((size,), torch.uint8, "") for place, size in enumerate(sizes)})


def receive(say: Connection, joining: Joining, what: str) -> None:
    """`what` goes wrong before the second piece: `die`, `stop` for good, or nothing."""
    receiver = Receiver(torch.device("cpu"))
    receiver.join(joining)
    for number, sizes in enumerate(SIZES):
        if number and what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if number and what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        layout = layout_of(sizes)
        began = time.monotonic()
        try:
            memory = receiver.memory(Broadcast(number), layout)
        except Broken as error:
            say.send(f"broken after {time.monotonic() - began:.1f}: {error}")
            os._exit(3)
        say.send(checksums([tensor for _, tensor in layout.tensors(memory)]))
    receiver.leave()
