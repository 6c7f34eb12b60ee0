"""Weights written as safetensors files while they come, one tensor after the other, so that they are never all in memory.

Names, shapes and dtypes of all are known before the first one comes. So the header of each file, which says where in it every
tensor lies, is written first, and each tensor goes to its place. Files end at 5 GB, and an index says which weight is in which,
as transformers and vLLM expect it. The format: https://huggingface.co/docs/safetensors (8 bytes with the length of the header,
the header as JSON, the bytes of all tensors).
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

LARGEST_FILE = 5_000_000_000
"""Bytes. A tensor that is larger has a file of its own."""
NAMES = {
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
"""What the format calls dtypes."""


@dataclass(frozen=True)
class Planned:
    """A tensor that will come."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Its bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True)
class Place:
    """Where a tensor goes."""

    file: str
    start: int


class Layout:
    """The files of a set of tensors."""

    def __init__(self, tensors: Mapping[str, Planned], largest: int = LARGEST_FILE) -> None:
        self.tensors = tensors
        parts: list[list[str]] = [[]]
        size = 0
        for name, planned in tensors.items():
            if parts[-1] and size + planned.size > largest:
                parts.append([])
                size = 0
            parts[-1].append(name)
            size += planned.size
        self.headers: dict[str, bytes] = {}
        """The beginning of each file, by its name."""
        self.places: dict[str, Place] = {}
        for number, names in enumerate(parts, 1):
            file = "model.safetensors" if len(parts) == 1 else f"model-{number:05}-of-{len(parts):05}.safetensors"
            self.headers[file] = self._lay_out(file, names)

    def _lay_out(self, file: str, names: Iterable[str]) -> bytes:
        """Give tensors their places in a file, wide numbers first, so that each begins at a multiple of its width."""
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        starts, start = {}, 0
        for name in sorted(names, key=lambda name: -self.tensors[name].dtype.itemsize):
            planned = self.tensors[name]
            starts[name], end = start, start + planned.size
            header[name] = {"dtype": NAMES[planned.dtype], "shape": list(planned.shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        beginning = len(text).to_bytes(8, "little") + text
        self.places |= {name: Place(file, len(beginning) + start) for name, start in starts.items()}
        return beginning

    @property
    def index(self) -> str | None:
        """What says in which file each tensor is; None where there is one file."""
        if len(self.headers) == 1:
            return None
        total = {"total_size": sum(planned.size for planned in self.tensors.values())}
        return (
            json.dumps({"metadata": total, "weight_map": {name: self.places[name].file for name in self.tensors}}, indent=2)
            + "\n"
        )


def write_streamed(
    weights: Iterable[tuple[str, Tensor]], planned: Mapping[str, Planned], folder: Path, largest: int = LARGEST_FILE
) -> None:
    """Write every tensor as it comes, in the dtype that is planned for it.

    Where the disk refuses, OSError is raised after the last tensor has come: other processes help to put each of them together.
    ValueError where other tensors come than were planned.
    """
    layout = Layout(planned, largest)
    refused: list[OSError] = []
    with ExitStack() as stack:
        files: dict[str, BinaryIO] = {}

        def write(weight: tuple[str, Tensor]) -> str:
            name, tensor = weight
            place, expected = layout.places.get(name), planned.get(name)
            if place is None or expected is None or tuple(tensor.shape) != expected.shape:
                raise ValueError(f"{name} of shape {tuple(tensor.shape)} comes, where {expected} was planned")
            if not refused:
                try:
                    if place.file not in files:
                        folder.mkdir(parents=True, exist_ok=True)
                        files[place.file] = stack.enter_context(open(folder / place.file, "wb"))
                        files[place.file].write(layout.headers[place.file])
                    files[place.file].seek(place.start)
                    files[place.file].write(_bytes_of(tensor, expected.dtype))
                except OSError as error:
                    refused.append(error)
            return name

        # `map` lets go of a tensor before it asks for the next one.
        written = set(map(write, weights))
    if refused:
        raise refused[0]
    if missing := planned.keys() - written:
        raise ValueError(f"{len(missing)} weights that were planned did not come, such as {min(missing)}")
    if layout.index is not None:
        (folder / "model.safetensors.index.json").write_text(layout.index)


def _bytes_of(tensor: Tensor, dtype: torch.dtype) -> memoryview:
    """The bytes of a tensor in a dtype."""
    stored = tensor.detach().to("cpu", dtype).contiguous()
    return stored.flatten().view(torch.uint8).numpy().data
