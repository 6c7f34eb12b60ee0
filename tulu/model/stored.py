"""What a checkpoint on disk holds, read from the headers of its files: names, shapes and dtypes, and a few rows of values."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor

from tulu.errors import RecipeError

NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The files in which transformers looks for weights, in its order. An index names the files that the weights are in."""


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    source: Any
    """What the values are read from: a slice of a safetensors file, or a tensor that torch mapped from its file."""

    def rows(self, first: int, last: int) -> Tensor:
        """The values of some rows; a number counts as one row."""
        values: Tensor = self.source[first:last]
        return values


@contextmanager
def open_checkpoint(path: str | Path, revision: str | None = None) -> Iterator[dict[str, Stored]]:
    """While the context lasts, every tensor of a model folder, or of a model on the hub that has been loaded before.

    Raises RecipeError if there are no weights.
    """
    tensors: dict[str, Stored] = {}
    with ExitStack() as stack:
        for file in weight_files(path, revision):
            if file.suffix == ".safetensors":
                opened = stack.enter_context(safe_open(str(file), framework="pt"))
                # The opened file is no mapping, so it cannot be iterated without keys().
                tensors |= {name: _of_file(opened, name) for name in opened.keys()}  # noqa: SIM118
            else:
                state = _mapped(file)
                tensors |= {
                    name: Stored(tuple(tensor.shape), tensor.dtype, torch.atleast_1d(tensor)) for name, tensor in state.items()
                }
        yield tensors


def weight_files(path: str | Path, revision: str | None = None) -> list[Path]:
    """The files that hold a model's weights. Raises RecipeError if there are none."""
    for name in NAMES:
        found = _file(path, name, revision)
        if found is None:
            continue
        if found.suffix != ".json":
            return [found]
        parts = sorted(set(json.loads(found.read_text())["weight_map"].values()))
        files = [_file(path, part, revision) for part in parts]
        if missing := [part for part, file in zip(parts, files, strict=True) if file is None]:
            raise RecipeError(f"{path}: {missing[0]} is missing, which {name} names\nCopy or download the model again.")
        return [file for file in files if file is not None]
    raise RecipeError(f"{path}: no weights in it ({', '.join(NAMES)})")


def _file(path: str | Path, name: str, revision: str | None) -> Path | None:
    if Path(path).is_dir():
        return Path(path) / name if (Path(path) / name).is_file() else None
    cached = try_to_load_from_cache(str(path), name, revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _of_file(opened: Any, name: str) -> Stored:
    part = opened.get_slice(name)
    shape = tuple(part.get_shape())
    # A slice of no rows says the dtype in torch's terms. A number has no rows.
    values = part if shape else opened.get_tensor(name)[None]
    return Stored(shape, values[:0].dtype, values)


def _mapped(file: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, without reading their values where its format allows that."""
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except RuntimeError:
        # torch before 1.6 wrote a format that cannot be mapped.
        state = torch.load(file, map_location="cpu", weights_only=True)
    return state
