"""Tokenised rows: flat arrays that the cache keeps on the disk, mapped into memory and read as a sequence of groups."""

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tulu.data.row_report import Report, SourceReport, source_report
from tulu.errors import DataError
from tulu.files import sync_folder
from tulu.types import Completion, Group


@dataclass(frozen=True)
class Arrays:
    """G groups of one source, end to end: T tokens in S segments, which are a prompt and its completions, group by group."""

    tokens: NDArray[np.int32]
    """(T,) token ids."""
    trained: NDArray[np.bool_]
    """(T,) whether a token's log-prob enters the loss."""
    bounds: NDArray[np.int64]
    """(S + 1,) segment s consists of the tokens [bounds[s], bounds[s + 1])."""
    first: NDArray[np.int64]
    """(G + 1,) group g consists of the segments [first[g], first[g + 1]), its prompt first."""
    margins: NDArray[np.float64]
    """(G,) the Bradley-Terry margin of each pair; 0 where the data gives none."""

    def group(self, index: int, group_id: str) -> Group:
        """One group; only its own tokens become Python lists."""
        start, end = int(self.first[index]), int(self.first[index + 1])
        bounds = self.bounds[start : end + 1].tolist()
        completions = tuple(
            Completion(self.tokens[left:right].tolist(), self.trained[left:right].tolist())
            for left, right in pairwise(bounds[1:])
        )
        return Group(self.tokens[bounds[0] : bounds[1]].tolist(), completions, group_id, float(self.margins[index]))


_DTYPES: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "trained": np.bool_,
    "bounds": np.int64,
    "first": np.int64,
    "margins": np.float64,
}


class ArraysBuilder:
    """Collects groups into flat buffers, so that a large source never stands in memory as one object a row."""

    def __init__(self) -> None:
        self._buffers = {name: bytearray() for name in _DTYPES}
        self._append("bounds", 0)
        self._append("first", 0)
        self._tokens = self._segments = 0

    def add(self, segments: Sequence[tuple[NDArray[np.int32], NDArray[np.bool_]]], margin: float) -> None:
        """Append a group: (tokens, trained) of its prompt, then of each completion."""
        for tokens, trained in segments:
            self._append("tokens", tokens)
            self._append("trained", trained)
            self._tokens += len(tokens)
            self._append("bounds", self._tokens)
        self._segments += len(segments)
        self._append("first", self._segments)
        self._append("margins", margin)

    def _append(self, name: str, value: NDArray[Any] | float) -> None:
        self._buffers[name] += np.asarray(value, dtype=_DTYPES[name]).tobytes()

    def build(self) -> Arrays:
        """The arrays of all groups; they share the buffers' memory."""
        return Arrays(**{name: np.frombuffer(self._buffers[name], dtype) for name, dtype in _DTYPES.items()})


@dataclass(frozen=True)
class Part:
    """The groups of one source, their ids, and the report of what became of its rows."""

    arrays: Arrays
    ids: Sequence[str]
    report: SourceReport

    @cached_property
    def digest(self) -> str:
        """Hash of arrays, ids and report, 32 hex digits."""
        return _digest({name: _hash(array) for name, array in vars(self.arrays).items()}, self._notes())

    def _notes(self) -> dict[str, Any]:
        return {"ids": list(self.ids), "report": asdict(self.report)}

    def save(self, folder: Path) -> None:
        """Write the part beside its folder, then rename it; a folder that another process wrote in the meantime stays."""
        partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            hashes = {}
            for name, array in vars(self.arrays).items():
                array.tofile(partial / name)
                hashes[name] = _hash(array)
            notes = self._notes()
            meta = {"digest": _digest(hashes, notes), **notes}
            (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
            sync_folder(partial)
            if not folder.exists():
                partial.rename(folder)
        except OSError as error:
            if not (folder / "meta.json").exists():
                raise DataError(
                    f"{folder.parent}: the cache of tokenised rows cannot be written: {error.strerror or error}; "
                    "free some space there"
                ) from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class Corrupt(Exception):
    """The content of a cache entry is not what was written."""


def load_part(folder: Path) -> Part:
    """A cached part, its arrays mapped from the disk; Corrupt unless every byte is as it was written."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = Arrays(**{name: np.memmap(folder / name, dtype, "r") for name, dtype in _DTYPES.items()})
        part = Part(arrays, meta["ids"], source_report(meta["report"]))
        if part.digest != meta["digest"]:
            raise Corrupt(f"{folder}: its content is not what was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{folder}: {error}") from None
    return part


def _hash(array: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).view(np.uint8).data, digest_size=16).hexdigest()


def _digest(hashes: dict[str, str], notes: dict[str, Any]) -> str:
    text = json.dumps([sorted(hashes.items()), notes], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Groups(Sequence[Group]):
    """The groups of a mix, source after source; a group becomes Python objects only while it is read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part.ids) for part in parts)]).tolist()

    @cached_property
    def digest(self) -> str:
        """Hash of all tokens, masks, ids and margins, in order."""
        return hashlib.blake2b(" ".join(part.digest for part in self._parts).encode(), digest_size=16).hexdigest()

    @property
    def report(self) -> Report:
        """What became of the rows of each source."""
        return Report(tuple(part.report for part in self._parts))

    @property
    def parts(self) -> tuple["Groups", ...]:
        """The groups of each source."""
        return tuple(Groups((part,)) for part in self._parts)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group: the prompt once, then every completion."""
        return np.concatenate([np.diff(part.arrays.bounds[part.arrays.first]) for part in self._parts])

    @cached_property
    def prompt_lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each prompt."""
        return np.concatenate([np.diff(part.arrays.bounds)[part.arrays.first[:-1]] for part in self._parts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> Group: ...
    @overload
    def __getitem__(self, index: slice) -> list[Group]: ...
    def __getitem__(self, index: int | slice) -> Group | list[Group]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        place = index % len(self)
        number = bisect_right(self._starts, place) - 1
        part, row = self._parts[number], place - self._starts[number]
        return part.arrays.group(row, part.ids[row])

    def __iter__(self) -> Iterator[Group]:
        return (self[index] for index in range(len(self)))
