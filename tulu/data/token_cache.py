"""Tokenised rows: flat arrays that the cache keeps on the disk, mapped into memory and read as a sequence of groups."""

import hashlib
import json
import logging
import os
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tulu.data.lazy import LazySequence
from tulu.data.row_report import MixReport, RowReport, total
from tulu.errors import DataError
from tulu.files import sync_folder
from tulu.types import Completion, Group

log = logging.getLogger("tulu")

_DTYPES: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "trained": np.bool_,
    "bounds": np.int64,
    "first": np.int64,
    "margins": np.float64,
}
_REPORTS = TypeAdapter(RowReport)
"""Reports to plain values and back."""


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


class ArraysBuilder:
    """Collects groups into flat buffers, so that a large source never stands in memory as one object a row."""

    def __init__(self) -> None:
        self._tokens, self._trained, self._margins = array("i"), array("b"), array("d")
        self._bounds, self._first = array("q", [0]), array("q", [0])

    def add(self, group: Group) -> None:
        """Append a group, of whose prompt nothing is trained."""
        segments = [(group.prompt, [False] * len(group.prompt))]
        segments += [(completion.tokens, list(completion.trained)) for completion in group.completions]
        for tokens, trained in segments:
            self._tokens.extend(tokens)
            self._trained.extend(trained)
            self._bounds.append(len(self._tokens))
        self._first.append(len(self._bounds) - 1)
        self._margins.append(group.margin)

    def build(self) -> Arrays:
        """The arrays of all groups; they share the buffers' memory."""
        return Arrays(**{name: np.frombuffer(getattr(self, f"_{name}"), dtype) for name, dtype in _DTYPES.items()})


@dataclass(frozen=True)
class Part:
    """The groups of one source, their ids, and the report of what became of its rows."""

    arrays: Arrays
    ids: Sequence[str]
    report: RowReport

    @cached_property
    def digest(self) -> str:
        """Hash of arrays, ids and report, 32 hex digits."""
        hashes = [(name, _hash(values.view(np.uint8).data)) for name, values in vars(self.arrays).items()]
        return _hash(json.dumps([hashes, self._notes()], sort_keys=True).encode())

    def _notes(self) -> dict[str, Any]:
        return {"ids": list(self.ids), "report": _REPORTS.dump_python(self.report, mode="json")}

    def save(self, folder: Path) -> None:
        """Write the part beside its folder, then rename it; a folder that another process wrote in the meantime stays."""
        partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            for name, values in vars(self.arrays).items():
                values.tofile(partial / name)
            (partial / "meta.json").write_text(json.dumps({"digest": self.digest, **self._notes()}), encoding="utf-8")
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


def load_part(folder: Path) -> Part | None:
    """A cached part, its arrays mapped from the disk; None, and a warning, unless every byte is as it was written."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        arrays = Arrays(**{name: np.memmap(folder / name, dtype, "r") for name, dtype in _DTYPES.items()})
        part = Part(arrays, meta["ids"], _REPORTS.validate_python(meta["report"]))
        if part.digest != meta["digest"]:
            raise ValueError("its content is not what was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("damaged cache entry, tokenising again: %s: %s", folder, error)
        return None
    return part


def _hash(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class Groups(LazySequence[Group]):
    """The groups of a mix, source after source; a group becomes Python objects only while it is read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part.ids) for part in parts)]).tolist()
        super().__init__(self._starts[-1], self._group)

    def _group(self, place: int) -> Group:
        number = bisect_right(self._starts, place) - 1
        part, row = self._parts[number], place - self._starts[number]
        return part.arrays.group(row, part.ids[row])

    @cached_property
    def digest(self) -> str:
        """Hash of all tokens, masks, ids and margins, in order."""
        return _hash(" ".join(part.digest for part in self._parts).encode())

    @property
    def report(self) -> MixReport:
        """What became of the rows of each source."""
        return total(part.report for part in self._parts)

    @property
    def parts(self) -> tuple["Groups", ...]:
        """The groups of each source."""
        return tuple(Groups((part,)) for part in self._parts)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group: the prompt once, then every completion."""
        return np.concatenate([np.diff(part.arrays.bounds[part.arrays.first]) for part in self._parts])
