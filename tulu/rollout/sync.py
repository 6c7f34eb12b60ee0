"""Weights on their way from the learner to an engine in another process: packed with digests, checked before any is loaded."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from tulu.errors import EngineError

CHUNK_BYTES = 1 << 28
"""Bytes after which a parcel is sent; a larger tensor makes a parcel of its own."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each weight under its published name."""


@dataclass(frozen=True)
class Entry:
    """What the learner says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    digest: str
    """xxh3-128 of its bytes."""


@dataclass(frozen=True)
class Parcel:
    """Some of the weights, and what the learner says of each."""

    entries: dict[str, Entry]
    data: dict[str, NDArray[np.uint8]]
    """Their bytes: a numpy array crosses Ray's object store without a copy on the other side, and numpy has no bfloat16."""


def digest(data: NDArray[np.uint8]) -> str:
    """Hash of a tensor's bytes."""
    return xxhash.xxh3_128(data.data).hexdigest()


def parcels(weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Parcel]:
    """The weights in the engine's dtype, parcel by parcel, so that a shard gathered for one is freed before the next."""
    entries: dict[str, Entry] = {}
    data: dict[str, NDArray[np.uint8]] = {}
    size = 0
    for name, tensor in weights:
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        whole = tensor.detach().to("cpu", wanted).contiguous()
        data[name] = whole.flatten().view(torch.uint8).numpy()
        entries[name] = Entry(tuple(whole.shape), wanted, digest(data[name]))
        size += data[name].nbytes
        if size >= chunk_bytes:
            yield Parcel(entries, data)
            entries, data, size = {}, {}, 0
    if entries:
        yield Parcel(entries, data)


def verified(
    data: Mapping[str, NDArray[np.uint8]], entries: Mapping[str, Entry], expected: Shapes, dtype: torch.dtype
) -> list[tuple[str, Tensor]]:
    """The tensors that arrived, if they are all of the model's and each is what the learner sent.

    Raises EngineError naming the first tensor that is missing, unknown, of another shape or dtype, or corrupted.
    """
    for name in expected:
        if name not in entries:
            raise EngineError(f"weight sync refused: {name} is missing; a set of {len(entries)} tensors for {len(expected)}")
    tensors = []
    for name, entry in entries.items():
        if name not in expected:
            raise EngineError(f"weight sync refused: {name} is not a weight of the engine's model")
        if entry.shape != expected[name]:
            raise EngineError(f"weight sync refused: {name} has shape {entry.shape}, the engine's model {expected[name]}")
        if entry.dtype.is_floating_point and entry.dtype != dtype:
            raise EngineError(f"weight sync refused: {name} comes as {entry.dtype}, the engine computes in {dtype}")
        if name not in data:
            raise EngineError(f"weight sync refused: {name} was announced and did not arrive")
        if data[name].dtype != np.uint8 or digest(data[name]) != entry.digest:
            raise EngineError(f"weight sync refused: {name} is corrupted: its digest is not the learner's")
        tensors.append((name, tensor_of(data[name], entry)))
    return tensors


def tensor_of(data: NDArray[np.uint8], entry: Entry) -> Tensor:
    """The tensor whose bytes these are; it shares their memory unless that is read-only."""
    # The object store's memory is read-only, which torch does not know: a copy, tensor by tensor, is the safe way.
    writable = data if data.flags.writeable else data.copy()
    return torch.from_numpy(writable).view(entry.dtype).reshape(entry.shape)


def expected_weights(folder: Path, tied: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a checkpoint, from the headers of its files; of tied heads only the embedding.

    Raises EngineError if the folder holds no weights.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= _safetensors_shapes(file)
    if not shapes:
        for file in sorted(folder.glob("pytorch_model*.bin")):
            state: dict[str, Any] = torch.load(file, map_location="meta", mmap=True, weights_only=True)
            shapes |= {name: tuple(tensor.shape) for name, tensor in state.items()}
    if not shapes:
        raise EngineError(f"{folder}: no weights in it (*.safetensors or pytorch_model*.bin)")
    if tied:
        shapes.pop("lm_head.weight", None)
    # Old checkpoints hold the rotary frequencies, which are no parameters.
    return {name: shape for name, shape in shapes.items() if not name.endswith("rotary_emb.inv_freq")}


def _safetensors_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(str(file), framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 (it is no mapping)
