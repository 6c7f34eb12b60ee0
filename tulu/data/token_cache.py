"""Tokenised rows: flat arrays that the cache keeps on the disk, read as a sequence of groups, a row when it is asked for."""

import json
import logging
import os
import shutil
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tulu.data.lazy import LazySequence
from tulu.data.on_disk import Held, OnDisk
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
    "ids": np.uint8,
    "id_ends": np.int64,
}
"""The files of an entry beside meta.json, one for each array."""
_REPORTS = TypeAdapter(RowReport)
"""Reports to plain values and back."""
_READ = 1 << 24
"""Bytes that are hashed at a time: mapped pages would count as memory of this process."""


@dataclass(frozen=True)
class Arrays:
    """G groups, end to end: T tokens in S segments, which are a prompt and its completions, group by group."""

    tokens: "NDArray[np.int32] | OnDisk"
    """(T,) token ids."""
    trained: "NDArray[np.bool_] | OnDisk"
    """(T,) whether a token's log-prob enters the loss."""
    bounds: NDArray[np.int64]
    """(S + 1,) segment s consists of the tokens [bounds[s], bounds[s + 1])."""
    first: NDArray[np.int64]
    """(G + 1,) group g consists of the segments [first[g], first[g + 1]), its prompt first."""
    margins: NDArray[np.float64]
    """(G,) the Bradley-Terry margin of each pair; 0 where the data gives none."""
    ids: "NDArray[np.uint8] | OnDisk"
    """The ids of all groups as UTF-8, end to end."""
    id_ends: NDArray[np.int64]
    """(G,) where each id ends."""

    @classmethod
    def of(cls, groups: Iterable[Group]) -> "Arrays":
        """Groups end to end. No token of a prompt is trained."""
        # Buffers of plain numbers take lists in a third of the time that numpy does.
        tokens, trained, ids = array("i"), bytearray(), bytearray()
        bounds, first, margins, id_ends = [0], [0], [], []
        for group in groups:
            tokens.extend(group.prompt)
            trained += bytes(len(group.prompt))
            bounds.append(len(tokens))
            for completion in group.completions:
                tokens.extend(completion.tokens)
                trained += bytes(completion.trained)
                bounds.append(len(tokens))
            first.append(len(bounds) - 1)
            margins.append(group.margin)
            ids += group.id.encode("utf-8", "surrogatepass")
            id_ends.append(len(ids))
        return cls(
            np.frombuffer(tokens, np.int32),
            np.frombuffer(trained, np.bool_),
            np.array(bounds, np.int64),
            np.array(first, np.int64),
            np.array(margins, np.float64),
            np.frombuffer(ids, np.uint8),
            np.array(id_ends, np.int64),
        )

    def __len__(self) -> int:
        return len(self.margins)

    def group(self, index: int) -> Group:
        """One group; only its own tokens become Python lists."""
        start, end = int(self.first[index]), int(self.first[index + 1])
        bounds = self.bounds[start : end + 1]
        tokens, trained = self.tokens[bounds[0] : bounds[-1]], self.trained[bounds[0] : bounds[-1]]
        prompt, *ends = (bounds[1:] - bounds[0]).tolist()
        completions = tuple(
            Completion(tokens[left:right].tolist(), trained[left:right].tolist()) for left, right in pairwise([prompt, *ends])
        )
        return Group(tokens[:prompt].tolist(), completions, self.id(index), float(self.margins[index]))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group: the prompt once, then every completion."""
        return np.diff(self.bounds[self.first])

    @property
    def completions(self) -> NDArray[np.int64]:
        """(G,) completions of each group."""
        return np.diff(self.first) - 1

    def id(self, index: int) -> str:
        """The id of one group."""
        begin = int(self.id_ends[index - 1]) if index else 0
        return self.ids[begin : int(self.id_ends[index])].tobytes().decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Part:
    """The groups of one source, the report of what became of its rows, and a hash of both, 32 hex digits."""

    arrays: Held
    report: RowReport
    digest: str

    @property
    def ids(self) -> Sequence[str]:
        """The id of every group."""
        return LazySequence(len(self.arrays), self.arrays.id)


class PartWriter:
    """Collects arrays chunk by chunk, in memory or in the files of a new entry of the cache, and hashes them as they come."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """The part of the source of this name; `folder` is the entry that it becomes, which need not be there."""
        self.report = RowReport(name)
        self.folder = folder
        self._partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}") if folder is not None else None
        self._hashes = {key: xxhash.xxh3_128() for key in _DTYPES}
        # What is added begins where everything before ended.
        self._ends = {"bounds": 0, "first": 0, "id_ends": 0}
        self._streams: dict[str, BinaryIO] = {}

    def __enter__(self) -> "PartWriter":
        if self._partial is not None:
            self._partial.mkdir(parents=True)
            self._streams = {key: (self._partial / key).open("wb") for key in _DTYPES}
        else:
            self._streams = {key: BytesIO() for key in _DTYPES}
        for key in ("bounds", "first"):
            self._write(key, np.zeros(1, np.int64))
        return self

    def add(self, arrays: Arrays, report: RowReport) -> None:
        """Append a chunk."""
        self.report.add(report)
        for key in ("tokens", "trained", "margins", "ids"):
            self._write(key, getattr(arrays, key))
        for key, values in (("bounds", arrays.bounds[1:]), ("first", arrays.first[1:]), ("id_ends", arrays.id_ends)):
            self._write(key, values + self._ends[key])
            self._ends[key] += int(values[-1]) if len(values) else 0
        self.report.tokens += len(arrays.tokens)
        self.report.trained += int(arrays.trained[:].sum())

    def _write(self, key: str, values: NDArray[Any]) -> None:
        content = np.ascontiguousarray(values, _DTYPES[key]).view(np.uint8).data
        self._hashes[key].update(content)
        self._streams[key].write(content)

    def part(self) -> Part:
        """What was added, as a part; an entry of the cache is on the disk then, and one that another process made stays."""
        hashes = {key: digest.hexdigest() for key, digest in self._hashes.items()}
        report = _REPORTS.dump_python(self.report, mode="json")
        digest = _digest(hashes, report)
        if self.folder is None or self._partial is None:
            contents = {key: stream.getbuffer() for key, stream in self._streams.items() if isinstance(stream, BytesIO)}
            return Part(
                Arrays(**{key: np.frombuffer(contents[key], dtype) for key, dtype in _DTYPES.items()}), self.report, digest
            )
        self._close()
        meta = {"digest": digest, "hashes": hashes, "report": report}
        (self._partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        sync_folder(self._partial)
        if not self.folder.exists():
            self._partial.rename(self.folder)
        return open_part(self.folder)

    def _close(self) -> None:
        if self._partial is not None:
            for stream in self._streams.values():
                stream.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._close()
        if self._partial is None or self.folder is None:
            return
        shutil.rmtree(self._partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{self.folder.parent}: the cache of tokenised rows cannot be written: {error.strerror or error}; "
                "free some space there"
            ) from None


def open_part(folder: Path) -> Part:
    """An entry of the cache, whose arrays stay on the disk. Nothing is read of them here."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    arrays = Arrays(**{key: _opened(folder / key, key) for key in _DTYPES})
    return Part(arrays, _REPORTS.validate_python(meta["report"]), str(meta["digest"]))


_READ_BY_ROW = ("tokens", "trained", "ids")
"""Arrays that are as long as all rows together."""


def _opened(file: Path, key: str) -> Any:
    """An array of an entry: what a row has one number of is mapped, the rows themselves are read."""
    if key in _READ_BY_ROW:
        return OnDisk(file, _DTYPES[key])
    # An empty file cannot be mapped.
    return np.memmap(file, _DTYPES[key], "r") if file.stat().st_size else np.zeros(0, _DTYPES[key])


def is_whole(folder: Path) -> bool:
    """Whether every byte of an entry is as it was written; if not, a warning says what is wrong."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        hashes = {key: _hash_file(folder / key) for key in _DTYPES}
        if meta["digest"] != _digest(hashes, meta["report"]):
            raise ValueError("its content is not what was written")
        open_part(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("damaged cache entry, tokenising again: %s: %s", folder, error)
        return False
    return True


def _hash_file(file: Path) -> str:
    digest = xxhash.xxh3_128()
    with file.open("rb", buffering=0) as stream:
        while content := stream.read(_READ):
            digest.update(content)
    return digest.hexdigest()


def _digest(hashes: dict[str, str], report: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps([hashes, report], sort_keys=True).encode())


class Groups(LazySequence[Group]):
    """The groups of a mix, source after source; a group becomes Python objects only while it is read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part.arrays) for part in parts)]).tolist()
        super().__init__(self._starts[-1], self._group)

    def _group(self, place: int) -> Group:
        number = bisect_right(self._starts, place) - 1
        return self._parts[number].arrays.group(place - self._starts[number])

    @cached_property
    def digest(self) -> str:
        """Hash of all tokens, masks, ids and margins, in order."""
        return xxhash.xxh3_128_hexdigest(" ".join(part.digest for part in self._parts).encode())

    @property
    def digests(self) -> dict[str, str]:
        """The digest of each source by its name, so that it can be told which of them has changed."""
        found: dict[str, str] = {}
        for part in self._parts:
            found[part.report.name] = found.get(part.report.name, "") + part.digest
        return found

    @property
    def report(self) -> MixReport:
        """What became of the rows of each source."""
        return total(part.report for part in self._parts)

    @property
    def parts(self) -> tuple["Groups", ...]:
        """The groups of each source."""
        return tuple(Groups((part,)) for part in self._parts)

    @cached_property
    def completions(self) -> NDArray[np.int64]:
        """(G,) completions of each group."""
        return np.concatenate([part.arrays.completions for part in self._parts])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group: the prompt once, then every completion."""
        return np.concatenate([part.arrays.lengths for part in self._parts])
