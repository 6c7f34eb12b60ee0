"""Weights on their way from the learner to an engine in another process: packed with digests, and verified before loading."""

import math
import mmap
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tulu.config.cores import cores
from tulu.errors import EngineError, RecipeError
from tulu.model.published import is_buffer
from tulu.model.stored import open_checkpoint

PARCEL_BYTES = 1 << 28
"""Most bytes of a parcel. A larger tensor makes a parcel of its own, which is cut where it is sent (`slices`)."""
ALIGNMENT = 64
"""Tensors that lie one behind the other in shared memory begin at multiples of this, so that they can be read in place."""
MOST_THREADS = 8


class WeightsRefused(EngineError):
    """Weights that are not those of the engine's model, or not what the learner sent."""


Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each weight by its name in a published checkpoint."""


@dataclass(frozen=True)
class TensorInfo:
    """Shape, dtype and digest of one tensor, as the learner sent it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    digest: str
    """xxh3-128 of its bytes."""
    is_buffer: bool = False
    """Whether it is a weight that never trains, which is sent as the learner holds it."""

    @property
    def bytes(self) -> int:
        """The size of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Weight:
    """One weight as the engine takes it."""

    name: str
    tensor: Tensor
    is_buffer: bool

    def info(self, digest: str = "") -> TensorInfo:
        """What the engine is told of it."""
        return TensorInfo(tuple(self.tensor.shape), self.tensor.dtype, digest, self.is_buffer)


@dataclass(frozen=True)
class Parcel:
    """Some of the weights by name."""

    infos: dict[str, TensorInfo]
    data: dict[str, NDArray[np.uint8]]
    """The bytes. A numpy array leaves Ray's object store without a copy, and numpy has no bfloat16 of its own."""

    def slices(self, most: int = PARCEL_BYTES) -> Iterator[list["Slice"]]:
        """The bytes in lists of at most `most` bytes each; a tensor that is larger is spread over several."""
        part: list[Slice] = []
        room = most
        for name, array in self.data.items():
            first = 0
            while first < len(array) or (first == 0 and not len(array)):
                taken = array[first : first + room]
                part.append((name, first, taken))
                first, room = first + max(1, len(taken)), room - len(taken)
                if room <= 0:
                    yield part
                    part, room = [], most
        if part:
            yield part


Slice = tuple[str, int, NDArray[np.uint8]]
"""Some bytes of one tensor: its name, the first byte's place in the tensor, the bytes."""


@dataclass(frozen=True)
class Layout:
    """Where each tensor of a parcel lies in one piece of memory, for example {"a": 0, "b": 64} of 100 bytes."""

    starts: dict[str, int]
    infos: dict[str, TensorInfo]
    size: int

    @classmethod
    def of(cls, infos: Mapping[str, TensorInfo]) -> "Layout":
        """Tensors one behind the other, each at a multiple of ALIGNMENT."""
        starts, end = {}, 0
        for name, info in infos.items():
            starts[name] = end
            end += -(-info.bytes // ALIGNMENT) * ALIGNMENT
        return cls(starts, dict(infos), end)

    def bytes_of(self, memory: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor in that memory."""
        return memory[self.starts[name] : self.starts[name] + self.infos[name].bytes]

    def digests(self, memory: NDArray[np.uint8]) -> dict[str, str]:
        """The digest of each tensor as it lies in that memory."""
        return all_digests({name: self.bytes_of(memory, name) for name in self.starts})

    def tensors(self, memory: Tensor) -> list[tuple[str, Tensor]]:
        """The tensors, which share that memory, a row of bytes on any device."""
        return [
            (name, memory[self.starts[name] : self.starts[name] + info.bytes].view(info.dtype).reshape(info.shape))
            for name, info in self.infos.items()
        ]

    def fill(self, memory: Tensor, group: Iterable["Weight"]) -> None:
        """Copy tensors to their places in a row of bytes on any device."""
        places = dict(self.tensors(memory))
        for weight in group:
            places[weight.name].copy_(weight.tensor)


def mapped(path: str, size: int) -> NDArray[np.uint8]:
    """Map a file in memory, all of its pages at once: to meet them one after the other takes longer than to copy them."""
    with open(path, "r+b", buffering=0) as file:
        return np.frombuffer(mmap.mmap(file.fileno(), size, mmap.MAP_SHARED | mmap.MAP_POPULATE), np.uint8)


def digest(data: NDArray[np.uint8]) -> str:
    """The xxh3-128 of a tensor's bytes."""
    return xxhash.xxh3_128(data.data).hexdigest()


def all_digests(data: Mapping[str, NDArray[np.uint8]]) -> dict[str, str]:
    """The digest of each of these, on several cores: hashing does not hold the interpreter's lock."""
    return dict(zip(data, hashing_threads().map(digest, data.values()), strict=True))


@cache
def hashing_threads() -> ThreadPoolExecutor:
    """The threads that hash; more than a few wait for the memory rather than for a core."""
    return ThreadPoolExecutor(min(MOST_THREADS, cores()), thread_name_prefix="tulu-hash")


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a contiguous tensor, as a row."""
    return tensor.flatten().view(torch.uint8)


def grouped(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype, most: int = PARCEL_BYTES) -> Iterator[list[Weight]]:
    """The weights as the engine takes them, on the device where they are, in groups of at most `most` bytes.

    A gathered shard is freed before the next is gathered, so there is never a second copy of all weights.
    """
    group: list[Weight] = []
    size = 0
    for name, tensor in weights:
        # Engines keep such buffers in float32 too: they decide between experts, and rounding would change which ones.
        kept = is_buffer(tensor) or not tensor.is_floating_point()
        sent = tensor.detach().to(tensor.dtype if kept else dtype).contiguous()
        if size and size + sent.nbytes > most:
            yield group
            group, size = [], 0
        group.append(Weight(name, sent, is_buffer(tensor)))
        size += sent.nbytes
    if group:
        yield group


def pack_weights(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype, parcel_bytes: int = PARCEL_BYTES) -> Iterator[Parcel]:
    """Yield the weights in the engine's dtype, in parcels in this process's memory."""
    for group in grouped(weights, dtype, parcel_bytes):
        data = {weight.name: bytes_of(weight.tensor.to("cpu")).numpy() for weight in group}
        digests = all_digests(data)
        yield Parcel({weight.name: weight.info(digests[weight.name]) for weight in group}, data)


def verify_weights(
    data: Mapping[str, NDArray[np.uint8]], infos: Mapping[str, TensorInfo], expected: Shapes, dtype: torch.dtype
) -> list[tuple[str, Tensor]]:
    """Return the tensors that arrived, if they are all of the model's weights and each is what the learner sent.

    Raises WeightsRefused naming the first tensor that is missing, unknown, of another shape or dtype, or corrupted.
    """
    check_complete(infos, expected)
    check_infos(infos, expected, dtype)
    tensors = []
    for name, info in infos.items():
        if name not in data:
            raise WeightsRefused(f"weight sync refused: {name} was announced and did not arrive")
        if data[name].dtype != np.uint8 or digest(data[name]) != info.digest:
            raise WeightsRefused(f"weight sync refused: {name} is corrupted: its digest is not the learner's")
        # The memory of Ray's object store is read-only, which torch does not know. One copy per tensor is the safe way.
        writable = data[name] if data[name].flags.writeable else data[name].copy()
        tensors.append((name, torch.from_numpy(writable).view(info.dtype).reshape(info.shape)))
    return tensors


def check_complete(arrived: Collection[str], expected: Shapes) -> None:
    """Raise WeightsRefused naming the first of the model's weights that is not among those that arrived."""
    for name in expected:
        if name not in arrived:
            raise WeightsRefused(f"weight sync refused: {name} is missing; a set of {len(arrived)} tensors for {len(expected)}")


def check_infos(infos: Mapping[str, TensorInfo], expected: Shapes, dtype: torch.dtype) -> None:
    """Raise WeightsRefused naming the first announced tensor that is unknown, or of another shape or dtype than the model's."""
    for name, info in infos.items():
        if name not in expected:
            raise WeightsRefused(f"weight sync refused: {name} is not a weight of the engine's model")
        if info.shape != expected[name]:
            raise WeightsRefused(f"weight sync refused: {name} has shape {info.shape}, the engine's model {expected[name]}")
        if info.dtype.is_floating_point and not info.is_buffer and info.dtype != dtype:
            raise WeightsRefused(f"weight sync refused: {name} comes as {info.dtype}, the engine computes in {dtype}")


def read_shapes(folder: Path, tied: bool) -> dict[str, tuple[int, ...]]:
    """Read the names and shapes of a checkpoint's weights from the headers of its files.

    Where the output head is `tied` to the embedding, only the embedding is a weight. Raises EngineError if the folder holds
    no weights.
    """
    try:
        with open_checkpoint(folder) as stored:
            shapes = {name: tensor.shape for name, tensor in stored.items()}
    except RecipeError as error:
        raise EngineError(str(error)) from error
    if tied:
        shapes.pop("lm_head.weight", None)
    # Old checkpoints store the rotary frequencies, which are not parameters.
    return {name: shape for name, shape in shapes.items() if not name.endswith("rotary_emb.inv_freq")}
