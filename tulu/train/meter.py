"""The speed of a run: tokens a second, the share of the device's best that training reaches, memory, and where time goes."""

import resource
import sys

import torch
from torch import nn

from tulu.model.cards import peak_of
from tulu.model.parallel import Parallel
from tulu.model.work import Work

Measured = dict[str, float | None]


class Meter:
    """Counts the work of a learner, and says how fast it was."""

    def __init__(self, module: nn.Module, parallel: Parallel) -> None:
        """Of a module that is not sharded yet."""
        self.clock, self.device = parallel.clock, parallel.device
        self.work = Work.of(module)
        peak = peak_of(self.device)
        self._peak = None if peak is None else peak * parallel.world
        self._operations = 0.0

    def add(self, operations: float) -> None:
        """Operations of all processes have been done."""
        self._operations += operations

    def read(self, seconds: float, training_seconds: float | None = None) -> Measured:
        """What was measured since the last call, over so many seconds, of which some were spent on training.

        `mfu` is the share of the bf16 products that the cards could have done at most in the time of training; None where the
        card is not known, as a CPU. `peak_gib` is the most memory that this process has held so far, on its GPU if it has one.
        """
        operations, self._operations = self._operations, 0.0
        available = None if self._peak is None else self._peak * (training_seconds or seconds)
        shares = {f"share_{part}": spent / seconds if seconds else 0.0 for part, spent in self.clock.read().items()}
        return {"mfu": operations / available if available else None, "peak_gib": peak_gib(self.device), **shares}


def peak_gib(device: torch.device) -> float:
    """The most memory that was held so far, on a GPU by tensors, elsewhere by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held * (1 if sys.platform == "darwin" else 1024) / 2**30
