"""Weights on their way from the learner to an engine in another process: packed with digests, and verified before loading."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tulu.errors import EngineError, RecipeError
from tulu.model.published import is_buffer
from tulu.model.stored import open_checkpoint

PARCEL_BYTES = 1 << 28
"""Bytes after which a parcel is sent. A larger tensor makes a parcel of its own."""

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


@dataclass(frozen=True)
class Parcel:
    """Some of the weights by name."""

    infos: dict[str, TensorInfo]
    data: dict[str, NDArray[np.uint8]]
    """The bytes. A numpy array leaves Ray's object store without a copy, and numpy has no bfloat16 of its own."""


def digest(data: NDArray[np.uint8]) -> str:
    """The xxh3-128 of a tensor's bytes."""
    return xxhash.xxh3_128(data.data).hexdigest()


def pack_weights(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype, parcel_bytes: int = PARCEL_BYTES) -> Iterator[Parcel]:
    """Yield the weights in the engine's dtype, in parcels, so that a gathered shard is freed before the next is gathered."""
    infos: dict[str, TensorInfo] = {}
    data: dict[str, NDArray[np.uint8]] = {}
    size = 0
    for name, tensor in weights:
        # Engines keep such buffers in float32 too: they decide between experts, and rounding would change which ones.
        kept = is_buffer(tensor) or not tensor.is_floating_point()
        sent = tensor.detach().to("cpu", tensor.dtype if kept else dtype).contiguous()
        data[name] = sent.flatten().view(torch.uint8).numpy()
        infos[name] = TensorInfo(tuple(sent.shape), sent.dtype, digest(data[name]), is_buffer(tensor))
        size += data[name].nbytes
        if size >= parcel_bytes:
            yield Parcel(infos, data)
            infos, data, size = {}, {}, 0
    if infos:
        yield Parcel(infos, data)


def verify_weights(
    data: Mapping[str, NDArray[np.uint8]], infos: Mapping[str, TensorInfo], expected: Shapes, dtype: torch.dtype
) -> list[tuple[str, Tensor]]:
    """Return the tensors that arrived, if they are all of the model's weights and each is what the learner sent.

    Raises EngineError naming the first tensor that is missing, unknown, of another shape or dtype, or corrupted.
    """
    for name in expected:
        if name not in infos:
            raise EngineError(f"weight sync refused: {name} is missing; a set of {len(infos)} tensors for {len(expected)}")
    tensors = []
    for name, info in infos.items():
        if name not in expected:
            raise EngineError(f"weight sync refused: {name} is not a weight of the engine's model")
        if info.shape != expected[name]:
            raise EngineError(f"weight sync refused: {name} has shape {info.shape}, the engine's model {expected[name]}")
        if info.dtype.is_floating_point and not info.is_buffer and info.dtype != dtype:
            raise EngineError(f"weight sync refused: {name} comes as {info.dtype}, the engine computes in {dtype}")
        if name not in data:
            raise EngineError(f"weight sync refused: {name} was announced and did not arrive")
        if data[name].dtype != np.uint8 or digest(data[name]) != info.digest:
            raise EngineError(f"weight sync refused: {name} is corrupted: its digest is not the learner's")
        # The memory of Ray's object store is read-only, which torch does not know. One copy per tensor is the safe way.
        writable = data[name] if data[name].flags.writeable else data[name].copy()
        tensors.append((name, torch.from_numpy(writable).view(info.dtype).reshape(info.shape)))
    return tensors


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
