"""Data sets as rows: files, saved Arrow folders, hub names and generated tasks, read lazily, every row with its place."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

from tulu.config.schema import Source
from tulu.data import sums
from tulu.errors import DataError

_GZIP = b"\x1f\x8b"
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was written, and where: FILE:LINE, or NAME:INDEX for what has no lines."""

    id: str
    columns: Mapping[str, Any]


class Rows(Sequence[Row]):
    """Rows that are parsed when they are asked for."""

    def __init__(self, length: int, read: Callable[[int], Row]) -> None:
        self._length = length
        self._read = read

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self._read(place) for place in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._read(index % self._length)

    def __iter__(self) -> Iterator[Row]:
        return map(self._read, range(self._length))


def load_rows(source: Source, seed: int = 1) -> Rows:
    """All rows of a source, in its own order and before any sampling; DataError where it cannot be read.

    The seed matters to generated tasks (`sums:sft`) only, and of those alone `count` decides how many rows there are.
    """
    task, _, split = source.name.partition(":")
    if task == "sums" and not Path(source.name).exists():
        return _generated(source, split, seed)
    path = Path(source.name).expanduser()
    if path.is_dir():
        return _folder(path, source)
    if path.exists():
        rows = _file(path, source.name)
    elif is_local(source.name):
        raise DataError(f"{source.name}: no such file (looked from {Path.cwd()}); correct the path")
    else:
        rows = _hub(source)
    if not rows:
        raise DataError(f"{source.name}: holds no rows; point data at a file that has some")
    return rows


def is_local(name: str) -> bool:
    """Whether a name can only be a path: it has a data file's suffix, or more slashes than a hub name."""
    return _suffix(Path(name)) in READERS or name.startswith((".", "/", "~")) or name.count("/") > 1


def content_key(source: Source, seed: int) -> str | None:
    """What identifies a source's content without parsing it; None where only reading it can tell (a hub name without commit)."""
    path = Path(source.name).expanduser()
    if path.is_file():
        return _digest([path])
    if path.is_dir():
        return _digest(sorted(file for file in path.rglob("*") if file.is_file())) + f":{source.split}"
    if source.name.startswith("sums:"):
        return f"{source.name}:{source.count}:{seed}"
    pinned = source.revision is not None and len(source.revision) == 40
    return f"{source.name}:{source.subset}:{source.split}:{source.revision}" if pinned else None


def _digest(files: Sequence[Path]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for file in files:
        with file.open("rb") as handle:
            total.update(hashlib.file_digest(handle, "blake2b").digest())
    return total.hexdigest()


def _generated(source: Source, split: str, seed: int) -> Rows:
    if split not in sums.SPLITS:
        raise DataError(f"{source.name}: sums has no split {split!r}; it has {', '.join(sums.SPLITS)}")
    made = sums.rows(split, source.count or sums.SPLITS[split], seed)
    return Rows(len(made), lambda index: Row(f"{source.name}:{index}", made[index]))


def _file(path: Path, name: str) -> Rows:
    reader = READERS.get(_suffix(path))
    if reader is None:
        raise DataError(f"{name}: unknown kind of file; known are {', '.join(READERS)}, each also as .gz")
    if path.stat().st_size == 0:
        raise DataError(f"{name}: the file is empty; point data at one that holds rows")
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: broken gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
    if path.suffix.lower() == ".gz" and content is data:
        raise DataError(f"{name}: not a gzip file, whatever its name says; rename it, or fetch it again")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{name}:1: not UTF-8 but UTF-16 (by its first two bytes); convert the file to UTF-8")
    return reader(content, name)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None


def _json_lines(content: bytes, name: str) -> Rows:
    lines = [(number, line) for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1) if line.strip()]

    def read(index: int) -> Row:
        number, line = lines[index]
        place = f"{name}:{number}"
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: broken JSON at column {error.colno}: {error.msg}; mend or remove the line") from None
        except ValueError as error:  # a number of more digits than Python converts
            raise DataError(f"{place}: {str(error).partition(';')[0]}; mend or remove the line") from None
        return Row(place, _object(value, place))

    return Rows(len(lines), read)


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f'{place}: holds a {type(value).__name__}; every row must be a JSON object, as {{"messages": [...]}}')
    return value


def _json(content: bytes, name: str) -> Rows:
    text = _text(content, name)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            return _json_lines(content, name)
        raise DataError(f"{name}:{error.lineno}: broken JSON at column {error.colno}: {error.msg}; mend the file") from None
    rows = value if isinstance(value, list) else [value]
    return Rows(len(rows), lambda index: Row(f"{name}:{index}", _object(rows[index], f"{name}: entry {index}")))


def _separated(content: bytes, name: str, delimiter: str) -> Rows:
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(_text(content, name), newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    header: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if header is None:
                header = cells
            elif cells:
                if len(cells) != len(header):
                    counts = f"{len(cells)} cells, but the header has {len(header)}"
                    raise DataError(f"{name}:{line}: {counts}; quote cells that hold a {delimiter!r}")
                rows.append(Row(f"{name}:{line}", dict(zip(header, cells, strict=True))))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}:{line}: broken CSV: {error}; mend the row") from None
    return Rows(len(rows), rows.__getitem__)


def _csv(content: bytes, name: str) -> Rows:
    return _separated(content, name, ",")


def _tsv(content: bytes, name: str) -> Rows:
    return _separated(content, name, "\t")


def _parquet(content: bytes, name: str) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except pyarrow.ArrowException as error:
        raise DataError(f"{name}: broken Parquet file ({error}); fetch it again") from None
    return _chunked(table.num_rows, name, lambda start, end: table.slice(start, end - start).to_pylist())


def _arrow(content: bytes, name: str) -> Rows:
    import pyarrow

    buffer = pyarrow.BufferReader(content)
    try:
        # A file begins with its magic bytes; datasets writes streams, which have none.
        reader = pyarrow.ipc.open_file(buffer) if content.startswith(b"ARROW1") else pyarrow.ipc.open_stream(buffer)
        table = reader.read_all()
    except pyarrow.ArrowException as error:
        raise DataError(f"{name}: broken Arrow file ({error}); fetch it again") from None
    return _chunked(table.num_rows, name, lambda start, end: table.slice(start, end - start).to_pylist())


def _chunked(length: int, name: str, fetch: Callable[[int, int], list[dict[str, Any]]]) -> Rows:
    """Rows of a table, converted a thousand at a time."""

    @lru_cache(maxsize=2)
    def chunk(number: int) -> list[dict[str, Any]]:
        return fetch(number * _CHUNK, min(length, (number + 1) * _CHUNK))

    return Rows(length, lambda index: Row(f"{name}:{index}", chunk(index // _CHUNK)[index % _CHUNK]))


def _of_dataset(dataset: Any, name: str) -> Rows:
    def fetch(start: int, end: int) -> list[dict[str, Any]]:
        columns = dataset[start:end]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    return _chunked(len(dataset), name, fetch)


def _folder(path: Path, source: Source) -> Rows:
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        cure = "name a file, or a folder that save_to_disk wrote"
        raise DataError(f"{source.name}: no saved Arrow folder ({error}); {cure}") from None
    if isinstance(found, datasets.DatasetDict):
        if source.split not in found:
            raise DataError(f"{source.name}: no split {source.split!r}; set split to one of {', '.join(found)}")
        found = found[source.split]
    if not len(found):
        raise DataError(f"{source.name}: holds no rows; point data at a folder that has some")
    return _of_dataset(found, source.name)


def _hub(source: Source) -> Rows:
    import datasets

    try:
        found = datasets.load_dataset(source.name, source.subset, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{source.name}: no file here, and the hub does not give it ({' '.join(str(error).split())}); "
            "check name, subset, split and revision, and the network, or give the path of a local copy"
        ) from None
    return _of_dataset(found, "/".join(part for part in (source.name, source.subset, source.split) if part))


READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
