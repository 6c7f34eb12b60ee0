"""Rows that stay on the disk: flat arrays of which slices are read, and what holds groups wherever they lie."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tulu.types import Group


class OnDisk:
    """A flat array in a file of which slices are read, so that no page of it ever counts as memory of this process."""

    def __init__(self, file: Path, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._stream = file.open("rb", buffering=0)
        self._length = file.stat().st_size // self._dtype.itemsize

    def __len__(self) -> int:
        return self._length

    def largest(self, start: int, end: int) -> int:
        """The largest byte of some entries of one byte each, whatever they stand for."""
        return int(self[start:end].view(np.uint8).max(initial=0))

    def __getitem__(self, places: slice) -> NDArray[Any]:
        start, end, _ = places.indices(self._length)
        size = self._dtype.itemsize
        # Unlike a seek, this is safe where threads read at the same time.
        content = os.pread(self._stream.fileno(), max(0, end - start) * size, start * size)
        return np.frombuffer(content, self._dtype)


class Held(Protocol):
    """Groups wherever they lie: in arrays of their own, or in files that somebody else tokenised."""

    def __len__(self) -> int: ...
    def group(self, index: int) -> Group:
        """One group."""

    def id(self, index: int) -> str:
        """Its id."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group."""

    @property
    def completions(self) -> NDArray[np.int64]:
        """(G,) completions of each group."""
