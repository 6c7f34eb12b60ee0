"""The processes that train together, and what they tell each other.

Whatever they exchange lies on the device of the process, because NCCL, which connects GPUs, takes nothing else. Gloo, which
connects processes on CPUs, is given tensors on the CPU by the same rule.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from tulu.losses import exact_dtype
from tulu.model.devices import default_device

T = TypeVar("T")

TIMEOUT = timedelta(minutes=60)
"""How long a process waits for the others, of which the first may tokenise a large mix for that long."""
BUCKET = 1 << 26
"""Numbers that are added up over the processes in one call."""


def numbered(device: torch.device) -> torch.device:
    """A device by its number: one process alone is told "cuda", which another thread may take for the first GPU, or refuse."""
    if device == torch.device("cuda"):
        return torch.device("cuda", torch.cuda.current_device())
    return device


class Processes:
    """This process among the others."""

    def __init__(self) -> None:
        from accelerate import PartialState

        # This connects the processes, once in the life of each: through NCCL where there are GPUs, through gloo elsewhere.
        state = PartialState(cpu=default_device().type == "cpu", timeout=TIMEOUT)
        self.rank, self.world = state.process_index, state.num_processes
        self.is_main = state.is_main_process
        self.device = numbered(state.device)

    # -- reductions --------------------------------------------------------------------------------------------

    def add_up(self, tensor: Tensor) -> Tensor:
        """A tensor, on the device of this process, with the sum over all processes in its place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def add_up_all(self, tensors: Sequence[Tensor]) -> None:
        """Put the sums over all processes into many tensors of one dtype, a large bucket at a time."""
        bucket: list[Tensor] = []
        size = 0
        for tensor in tensors if self.world > 1 else ():
            bucket.append(tensor)
            size += tensor.numel()
            if size >= BUCKET:
                self._add_up_bucket(bucket)
                bucket, size = [], 0
        if bucket:
            self._add_up_bucket(bucket)

    def _add_up_bucket(self, tensors: Sequence[Tensor]) -> None:
        flat = self.add_up(torch.cat([tensor.flatten() for tensor in tensors]))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def most(self, tensor: Tensor) -> Tensor:
        """A tensor, on the device of this process, with the largest of each entry over all processes in its place."""
        if self.world > 1:
            distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
        return tensor

    def total(self, number: float) -> float:
        """The sum of a number over all processes."""
        if self.world == 1:
            return number
        return float(self.add_up(torch.tensor(number, dtype=exact_dtype(self.device), device=self.device)))

    def largest(self, number: int) -> int:
        """The largest of a number over all processes."""
        if self.world == 1:
            return number
        return int(self.most(torch.tensor(number, dtype=torch.int64, device=self.device)))

    def names_of_all(self, names: Iterable[str]) -> list[str]:
        """The names that any process has, sorted, the same in every process. Two whose names differ cannot add up numbers."""
        return sorted({name for known in self.exchange(list(names)) for name in known})

    # -- rows and objects --------------------------------------------------------------------------------------

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's share of items that all ranks have: every world-th one, from its own rank on."""
        return items[self.rank :: self.world]

    def level(self, rows: Sequence[T], spare: T | None) -> Iterator[tuple[T, bool]]:
        """Every row of this process with True, then `spare` with False until all processes have yielded equally many.

        Processes that share weights must run equally many forward passes. ValueError where a spare is needed and there is none.
        """
        for index in range(self.largest(len(rows))):
            is_own = index < len(rows)
            row = rows[index] if is_own else spare
            if row is None:
                raise ValueError("a process without a row of its own needs a spare one")
            yield row, is_own

    def exchange(self, item: Any) -> list[Any]:
        """Every rank's item, in the order of ranks."""
        items = [item] * self.world
        if self.world > 1:
            # torch itself puts the bytes on the device that the connection takes.
            distributed.all_gather_object(items, item)
        return items

    def hand_out(self, parts: Sequence[Any] | None) -> Any:
        """This rank's part of what the main process hands out, one part a rank; the others give None. No rank sees another's."""
        if self.world == 1:
            return None if parts is None else parts[0]
        own: list[Any] = [None]
        distributed.scatter_object_list(own, None if parts is None else list(parts), src=0)
        return own[0]

    def bring(self, item: Any) -> list[Any]:
        """Every rank's item, in the order of ranks, in the main process alone; elsewhere nothing."""
        if self.world == 1:
            return [item]
        items = [None] * self.world if self.is_main else None
        distributed.gather_object(item, items, dst=0)
        return items or []

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world > 1:
            # A sum of nothing: unlike a barrier of NCCL it cannot guess the wrong device.
            self.add_up(torch.zeros(1, device=self.device)).tolist()
