"""What a session spends its time on, measured without anybody waiting for a device."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Literal

import torch

Part = Literal["data", "forward", "backward", "sync", "optimizer"]
PARTS: tuple[Part, ...] = ("data", "forward", "backward", "sync", "optimizer")
"""Waiting for rows; both passes; adding up gradients and numbers over processes and reading them; the step itself."""


class Clock:
    """Adds up the seconds of each part of a step: on a GPU those that the GPU takes, elsewhere those of this process."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._begun: deque[tuple[Part, torch.cuda.Event, torch.cuda.Event]] = deque()
        """What a GPU was given to do, in order, and has perhaps not done yet."""

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """While the context lasts, time belongs to this part."""
        # Rows are waited for by this process, whatever the GPU does meanwhile.
        if self._on_gpu and name != "data":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            yield
            last.record()
            self._begun.append((name, first, last))
            return
        began = perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += perf_counter() - began

    def read(self) -> dict[Part, float]:
        """The seconds of each part since the last call.

        What a GPU has not ended yet belongs to the next call. At the end of a step that is the optimizer, which the next step's
        seconds hold, too.
        """
        while self._begun and self._begun[0][2].query():
            name, first, last = self._begun.popleft()
            self._seconds[name] += first.elapsed_time(last) / 1000
        seconds, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        return seconds
