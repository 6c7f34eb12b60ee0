"""Data sets as rows: files, saved Arrow folders, hub names and generated tasks, read lazily, every row with its place."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from tulu.config.locate import DATA_SUFFIXES, data_suffix, is_local_data
from tulu.config.parts import Source
from tulu.data import sums
from tulu.data.lazy import LazySequence
from tulu.errors import DataError

_GZIP = b"\x1f\x8b"
"""The first bytes of every gzip file."""
_BOM = b"\xef\xbb\xbf"
"""The byte-order mark with which some programs open UTF-8."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CHUNK = 1000
"""Rows of a table that are converted at once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was written, and where: FILE:LINE, or NAME:INDEX for what has no lines."""

    id: str
    columns: Mapping[str, Any]


Rows = LazySequence[Row]
"""The rows of a data set, each parsed when it is read."""


def load_rows(source: Source, seed: int = 1) -> Rows:
    """All rows of a source, in its own order and before any sampling; DataError where it cannot be read.

    The seed matters only to generated tasks such as `sums:sft`, and for them alone `count` sets the number of rows.
    """
    task, _, split = source.name.partition(":")
    if task == "sums" and not Path(source.name).exists():
        return _generated(source, split, seed)
    path = Path(source.name).expanduser()
    if path.is_dir():
        return _folder(path, source)
    if path.exists():
        rows = _file(path, source.name)
    elif is_local_data(source.name):
        raise DataError(f"{source.name}: no such file (looked from {Path.cwd()}); correct the path")
    else:
        rows = _hub(source)
    if not rows:
        raise DataError(f"{source.name}: holds no rows; point data at a file that has some")
    return rows


def content_key(source: Source, seed: int) -> str | None:
    """A key of a source's content that needs no parsing; None for a hub name without commit, whose rows must be read."""
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
    rows = sums.rows(split, source.count or sums.SPLITS[split], seed)
    return Rows(len(rows), lambda index: Row(f"{source.name}:{index}", rows[index]))


def _file(path: Path, name: str) -> Rows:
    reader = _READERS.get(data_suffix(path.name))
    if reader is None:
        raise DataError(f"{name}: unknown kind of file; known are {', '.join(DATA_SUFFIXES)}, each also as .gz")
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
    if content.startswith(_UTF16):
        raise DataError(f"{name}:1: not UTF-8 but UTF-16 (by its first two bytes); convert the file to UTF-8")
    return reader(content, name)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None


def _json_lines(content: bytes, name: str) -> Rows:
    # Where the lines begin: a large file is held once, as bytes, and never as one object a line.
    starts, numbers = array("q"), array("q")
    stream = io.BytesIO(content)
    start = stream.seek(len(_BOM) if content.startswith(_BOM) else 0)
    for number, line in enumerate(stream, 1):
        if line.strip():
            starts.append(start)
            numbers.append(number)
        start += len(line)

    def read(index: int) -> Row:
        stream.seek(starts[index])
        line = stream.readline().removesuffix(b"\n")
        place = f"{name}:{numbers[index]}"
        try:
            value = json.loads(line)
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 (byte {error.start}); convert the file to UTF-8") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: broken JSON at column {error.colno}: {error.msg}; mend or remove the line") from None
        except ValueError as error:  # a number of more digits than Python converts
            raise DataError(f"{place}: {str(error).partition(';')[0]}; mend or remove the line") from None
        return Row(place, _object(value, place))

    return Rows(len(starts), read)


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


def _parquet(content: bytes, name: str) -> Rows:
    import pyarrow.parquet

    return _table_rows(lambda: pyarrow.parquet.read_table(pyarrow.BufferReader(content)), name, "Parquet")


def _arrow(content: bytes, name: str) -> Rows:
    import pyarrow

    # A file begins with its magic bytes; datasets writes streams, which have none.
    open_arrow = pyarrow.ipc.open_file if content.startswith(b"ARROW1") else pyarrow.ipc.open_stream
    return _table_rows(lambda: open_arrow(pyarrow.BufferReader(content)).read_all(), name, "Arrow")


def _table_rows(read: Callable[[], Any], name: str, kind: str) -> Rows:
    import pyarrow

    try:
        table = read()
    except pyarrow.ArrowException as error:
        raise DataError(f"{name}: broken {kind} file ({error}); fetch it again") from None
    return _chunked(table.num_rows, name, lambda start, end: table.slice(start, end - start).to_pylist())


def _chunked(length: int, name: str, fetch: Callable[[int, int], list[dict[str, Any]]]) -> Rows:
    """Rows of a table, converted a thousand at a time."""

    @lru_cache(maxsize=2)
    def chunk(number: int) -> list[dict[str, Any]]:
        return fetch(number * _CHUNK, min(length, (number + 1) * _CHUNK))

    return Rows(length, lambda index: Row(f"{name}:{index}", chunk(index // _CHUNK)[index % _CHUNK]))


def _dataset_rows(dataset: Any, name: str) -> Rows:
    def fetch(start: int, end: int) -> list[dict[str, Any]]:
        columns = dataset[start:end]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    return _chunked(len(dataset), name, fetch)


def _folder(path: Path, source: Source) -> Rows:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        cure = "name a file, or a folder that save_to_disk wrote"
        raise DataError(f"{source.name}: no saved Arrow folder ({error}); {cure}") from None
    if isinstance(dataset, datasets.DatasetDict):
        if source.split not in dataset:
            raise DataError(f"{source.name}: no split {source.split!r}; set split to one of {', '.join(dataset)}")
        dataset = dataset[source.split]
    if not len(dataset):
        raise DataError(f"{source.name}: holds no rows; point data at a folder that has some")
    return _dataset_rows(dataset, source.name)


def _hub(source: Source) -> Rows:
    import datasets

    try:
        dataset = datasets.load_dataset(source.name, source.subset, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{source.name}: no file here, and the hub does not give it ({' '.join(str(error).split())}); "
            "check name, subset, split and revision, and the network, or give the path of a local copy"
        ) from None
    return _dataset_rows(dataset, "/".join(part for part in (source.name, source.subset, source.split) if part))


_READERS: dict[str, Callable[[bytes, str], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".parquet": _parquet,
    ".arrow": _arrow,
}
