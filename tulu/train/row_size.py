"""How long a packed row may be: the longest that fits the memory of a GPU, found by one measurement.

A GPU is busy only where a row is long, and how long it may be depends on model, card and sharding. Two rows are computed forward
and backward, and the memory that they took is a straight line over their length: activations grow with it, the rest does not.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from tulu.config.plan import LONGEST_ROW, ROW_UNIT, USABLE
from tulu.config.training import ROW_TOKENS, TrainStage
from tulu.model.batch import Batch, pack_row
from tulu.train.optimizer import Learner
from tulu.types import Completion, Group


class Memory(Protocol):
    """The memory of a device, in bytes."""

    def available(self) -> float:
        """What this process can have in all, with what it has already."""

    def forget_peak(self) -> None:
        """Begin to measure."""

    def peak(self) -> float:
        """The most that it has had since."""


class GpuMemory:
    """The memory of a GPU as torch's allocator sees it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def available(self) -> float:
        free, _ = torch.cuda.mem_get_info(self.device)
        return float(free + torch.cuda.memory_reserved(self.device))

    def forget_peak(self) -> None:
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float:
        torch.cuda.synchronize(self.device)
        return float(torch.cuda.max_memory_allocated(self.device))


def longest_row(learner: Learner, stage: TrainStage, forward: Callable[[Batch], Tensor], memory: Memory) -> int:
    """Most tokens of a row of which both passes fit the memory of every process, with the optimizer's state beside them.

    `forward` makes a number of a row that depends on all that is trained. Weights, gradients and random states are afterwards as
    they were. A longest document of the stage must fit, or memory runs out here.
    """
    parallel = learner.parallel
    # Lengths at which kernels and the head's chunks are those of long rows.
    small, large = (stage.max_length // 2, stage.max_length) if stage.max_length >= ROW_TOKENS else (ROW_TOKENS // 2, ROW_TOKENS)
    peaks = []
    devices = [parallel.device] if parallel.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        for tokens in (small, large):
            memory.forget_peak()
            parallel.backward(0.0 * forward(probe_row(tokens, stage.max_length).to(parallel.device)), last=True)
            peaks.append(memory.peak())
            parallel.clear()
    each = max((peaks[1] - peaks[0]) / (large - small), 1.0)
    rest = peaks[1] - each * large + state_to_come(learner, stage)
    fits = (USABLE * memory.available() - rest) / each
    tokens = int(min(max(fits, ROW_UNIT), max(LONGEST_ROW, stage.max_length))) // ROW_UNIT * ROW_UNIT
    # Processes on unlike cards take the row that fits the smallest.
    return -parallel.largest(-tokens)


def probe_row(tokens: int, longest: int) -> Batch:
    """A row of so many tokens, all of them trained, in documents as long as the stage may have."""
    groups = []
    for first in range(0, tokens, longest):
        length = min(longest, tokens - first)
        groups.append(Group([], (Completion([0] * length, [True] * length),), "probe"))
    return pack_row(groups)


def state_to_come(learner: Learner, stage: TrainStage) -> float:
    """Bytes that the optimizer will take at its first step, and has not taken yet."""
    if stage.offload_optimizer or learner.optimizer.state:
        return 0.0
    weights = [weight for group in learner.optimizer.param_groups for weight in group["params"]]
    return float(sum(2 * weight.numel() * weight.element_size() for weight in weights))
