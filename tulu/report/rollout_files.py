"""Rollouts out of the Parquet files of a run: an index of plain numbers for filters, and texts of the few that are shown.

A file is read by its parts (row groups), and of each part only the columns that are asked for. What is needed to filter is some
fifty bytes a completion; it is kept for as many completions as INDEXED says and read again beyond.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

Array = npt.NDArray[Any]
Version = tuple[str, int, int]
"""Path, time and size of a file."""

NUMBERS = ("score", "reward", "advantage", "tokens", "group")
WORDS = ("id", "verifier", "status", "finish")
INDEXED = 4_000_000
"""Completions whose index is kept in memory."""
PREVIEW = 160
"""Characters of a completion in a list."""
UNKNOWN = "not recorded"
"""The verifier of rollouts that do not say it."""


class Damaged(Exception):
    """A file of rollouts that cannot be read; the message says why."""


@dataclass(frozen=True)
class Index:
    """One entry a completion of one file."""

    step: int
    score: Array
    reward: Array
    tokens: Array
    truncated: Array
    masked: Array
    verifier: Array
    """Places in `verifiers`."""
    verifiers: tuple[str, ...]
    group: Array
    """Number of the group in the file, ascending."""

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def starts(self) -> Array:
        """The first completion of every group, and behind them the number of completions."""
        changes = np.flatnonzero(np.diff(self.group)) + 1
        return np.concatenate([[0], changes, [len(self)]]) if len(self) else np.zeros(1, np.int64)


@dataclass(frozen=True)
class RolloutFile:
    """The rollouts of one step."""

    path: Path
    step: int

    def index(self) -> Index:
        """The numbers of the file. Raises Damaged."""
        try:
            with pq.ParquetFile(self.path) as file:
                present = set(file.schema_arrow.names)
                table = file.read([name for name in (*NUMBERS, *WORDS) if name in present])
        except (OSError, pa.ArrowException) as error:
            raise Damaged(_reason(error)) from error
        count = table.num_rows
        numbers = {name: _numbers(table, name, count) for name in NUMBERS}
        words = {name: _words(table, name, count) for name in WORDS}
        codes, verifiers = words["verifier"]
        ids = words["id"][0]
        group = numbers["group"] if "group" in present else np.cumsum(np.diff(ids, prepend=ids[:1]) != 0)
        return Index(
            step=self.step,
            score=numbers["score"],
            reward=numbers["reward"],
            tokens=np.nan_to_num(numbers["tokens"]).astype(np.int64),
            truncated=_is(words["finish"], "length"),
            masked=~_is(words["status"], "ok") if "status" in present else np.zeros(count, bool),
            verifier=codes,
            verifiers=tuple(name or UNKNOWN for name in verifiers),
            group=np.nan_to_num(np.asarray(group, np.float64)).astype(np.int64),
        )

    def rows(self, places: Sequence[int], columns: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """These completions, in ascending order, read from no more parts of the file than hold them. Raises Damaged."""
        try:
            with pq.ParquetFile(self.path) as file:
                present = set(file.schema_arrow.names)
                wanted = None if columns is None else [name for name in columns if name in present]
                return list(_rows(file, sorted(places), wanted))
        except (OSError, pa.ArrowException) as error:
            raise Damaged(_reason(error)) from error


def _rows(file: pq.ParquetFile, places: Sequence[int], columns: list[str] | None) -> Iterator[dict[str, Any]]:
    first = 0
    for part in range(file.num_row_groups):
        end = first + file.metadata.row_group(part).num_rows
        if mine := [place - first for place in places if first <= place < end]:
            yield from file.read_row_group(part, columns=columns).take(mine).to_pylist()
        first = end


def rollout_files(stage: Path) -> list[RolloutFile]:
    """The files of a stage, by step."""
    folder = stage / "rollouts"
    try:
        paths = sorted(folder.glob("step-*.parquet"))
    except OSError:
        return []
    steps = ((path, path.stem.removeprefix("step-")) for path in paths)
    return sorted((RolloutFile(path, int(step)) for path, step in steps if step.isdigit()), key=lambda file: file.step)


def version_of(file: RolloutFile) -> Version:
    """What changes when a file does. Raises Damaged where it is gone."""
    try:
        facts = file.path.stat()
    except OSError as error:
        raise Damaged(_reason(error)) from error
    return str(file.path), facts.st_mtime_ns, facts.st_size


class Indexes:
    """The indexes of files, kept while there is room. Files are written once and renamed, so that a new one has a new time."""

    def __init__(self, room: int = INDEXED) -> None:
        self._room = room
        self._kept: OrderedDict[Version, Index] = OrderedDict()
        self._held = 0
        self._lock = Lock()

    def of(self, file: RolloutFile) -> Index:
        """The index of a file. Raises Damaged."""
        key = version_of(file)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        index = file.index()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = index
                self._held += len(index)
            while self._held > self._room and len(self._kept) > 1:
                self._held -= len(self._kept.popitem(last=False)[1])
        return index


def _numbers(table: pa.Table, name: str, count: int) -> Array:
    """A column as float64, NaN where it has nothing or is absent."""
    if name not in table.column_names:
        return np.full(count, np.nan)
    column = table[name]
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return np.full(count, np.nan)
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _words(table: pa.Table, name: str, count: int) -> tuple[Array, list[str]]:
    """A column of texts as places in the list of its different texts."""
    if name not in table.column_names or not pa.types.is_string(table[name].type):
        return np.zeros(count, np.int64), [""]
    encoded = table[name].combine_chunks().dictionary_encode()
    texts = [text or "" for text in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
    return np.asarray(codes, np.int64), [*texts, ""]


def _is(words: tuple[Array, list[str]], text: str) -> Array:
    codes, texts = words
    found: Array = codes == (texts.index(text) if text in texts else -1)
    return found


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
