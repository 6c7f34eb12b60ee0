"""Files of weights written as they come: no more than a piece of one tensor is in memory, however large the model is.

The format is safetensors: eight bytes with the length of a header in JSON, the header with the place of every tensor, and the
tensors end to end. Names, shapes and dtypes are known beforehand, so the header can be written before any value is.
"""

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

SHARD_BYTES = 5 * 10**9
"""Most bytes of a file, unless a single tensor has more. It is what transformers cuts at, too."""
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How the format calls the dtypes of torch."""

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""The shape and the dtype of every tensor, by its name."""
Pieces = Callable[[str], Iterable[Tensor]]
"""The values of the tensor of a name: any number of tensors that make it, flattened, end to end."""


def write_weights(folder: Path, layout: Layout, pieces: Pieces, shard_bytes: int = SHARD_BYTES) -> None:
    """Write model.safetensors, or several files and their index where there is more than `shard_bytes`, and bring it to the disk.

    Raises OSError where the disk refuses, and ValueError where the pieces are not what the layout says.
    """
    shards = list(_shards(layout, shard_bytes))
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    names = ["model.safetensors"] if len(shards) == 1 else names
    for file, shard in zip(names, shards, strict=True):
        _write_file(folder / file, shard, pieces)
    if len(shards) > 1:
        places = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(_size(*entry) for entry in layout.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _size(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _shards(layout: Layout, most: int) -> Iterator[Layout]:
    """The tensors of each file, in their order."""
    shard: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
    size = 0
    for name, entry in layout.items():
        if shard and size + _size(*entry) > most:
            yield shard
            shard, size = {}, 0
        shard[name] = entry
        size += _size(*entry)
    if shard:
        yield shard


def _write_file(file: Path, layout: Layout, pieces: Pieces) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in layout.items():
        begin, end = end, end + _size(shape, dtype)
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    # The values begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, (shape, dtype) in layout.items():
            written = 0
            for piece in pieces(name):
                if piece.dtype != dtype:
                    raise ValueError(f"{name}: {piece.dtype} where {dtype} was announced")
                values = piece.detach().cpu().contiguous().flatten().view(torch.uint8)
                written += stream.write(values.numpy().data)
            if written != _size(shape, dtype):
                raise ValueError(f"{name}: {written} bytes where {_size(shape, dtype)} were announced")
