"""Data sets as rows: files, folders, patterns, hub names and generated tasks, read lazily, every row with its place."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tulu.config.hub import reach_hub
from tulu.config.locate import DATA_SUFFIXES, data_suffix, is_local_data, refuse_empty
from tulu.config.parts import Source
from tulu.config.shards import folder_files, is_pattern, matching_files
from tulu.config.tasks import GENERATED
from tulu.config.tasksets import REASONING_GYM, VERIFIERS
from tulu.data import sums
from tulu.data.lazy import LazySequence, concatenated
from tulu.data.tables import TableRows, arrow_rows, dataset_rows, mapped, parquet_rows
from tulu.data.tasksets import taskset_rows
from tulu.errors import DataError, first_few, nearest

_GZIP = b"\x1f\x8b"
"""The first bytes of every gzip file."""
_BOM = b"\xef\xbb\xbf"
"""The byte-order mark with which some programs open UTF-8."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class Row:
    """One row as it was written, and where: FILE:LINE, or NAME:INDEX for what has no lines."""

    id: str
    columns: Mapping[str, Any]
    problem: str = ""
    """Why a row that should hold several could not be taken apart; then no reader takes it."""


Rows = LazySequence[Row]
"""The rows of a data set, each parsed when it is read."""


def load_rows(source: Source, seed: int = 1) -> Rows:
    """All rows of a source, in its own order and before any sampling; DataError where it cannot be read.

    The seed matters only to generated tasks such as `sums:sft`, and for them alone `count` sets the number of rows.
    """
    task, _, split = source.name.partition(":")
    if task in (*GENERATED, REASONING_GYM, VERIFIERS) and not Path(source.name).exists():
        return {REASONING_GYM: _reasoning_gym, VERIFIERS: _taskset}.get(task, _generated)(source, split, seed)
    path = Path(source.name).expanduser()
    if path.exists() and not path.is_dir():
        rows = _file(path, source.name)
    elif path.is_dir() and _is_saved(path):
        rows = _saved(path, source)
    elif path.is_dir() or is_pattern(source.name):
        rows = concatenated([partial(_file, file, _label(file, path, source.name)) for file in _files(path, source)])
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
    if path.is_dir() and _is_saved(path):
        return _digest(sorted(file for file in path.rglob("*") if file.is_file())) + f":{source.split}"
    if path.is_dir() or is_pattern(source.name):
        files = _files(path, source)
        return f"{_digest(files)}:{[_label(file, path, source.name) for file in files]}"
    if source.name.startswith("sums:"):
        return f"{source.name}:{source.count}:{seed}"
    pinned = source.revision is not None and len(source.revision) == 40
    return f"{source.name}:{source.subset}:{source.split}:{source.revision}" if pinned else None


def local_files(source: Source) -> list[Path]:
    """The files here that a source's rows lie in, of whatever split; none where they are made or come from the hub."""
    path = Path(source.name).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return matching_files(source.name) if is_pattern(source.name) else []


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of datasets wrote a folder."""
    return (folder / "dataset_dict.json").is_file() or ((folder / "state.json").is_file() and any(folder.glob("*.arrow")))


def _files(path: Path, source: Source) -> list[Path]:
    """The files of a folder or of a pattern."""
    return folder_files(path, source.name, source.split, source.subset) if path.is_dir() else matching_files(source.name)


def _label(file: Path, folder: Path, name: str) -> str:
    """A file's path as the source's name begins it."""
    return f"{name.rstrip('/')}/{file.relative_to(folder)}" if folder.is_dir() else str(file)


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


def _reasoning_gym(source: Source, split: str, seed: int) -> Rows:
    """The problems that a data set of reasoning-gym generates, with what its verifier needs."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise DataError(f"{source.name}: reasoning-gym is not installed: pip install 'tulu[environments]'") from None
    if split not in DATASETS:
        hint = nearest(split, DATASETS) or f"; it has {first_few(sorted(DATASETS))}"
        raise DataError(f"{source.name}: reasoning-gym has no data set {split or 'without a name'}{hint}")
    try:
        size = {"size": source.count} if source.count else {}
        entries = reasoning_gym.create_dataset(split, **{"seed": seed, **size, **source.options})
    # What it is configured with is checked by assertions, and by whatever else its authors thought of.
    except Exception as error:
        fields = ", ".join(DATASETS[split][1].__dataclass_fields__)
        told = f"{type(error).__name__}: {error}"
        cure = f"set options of its own: {fields}"
        raise DataError(f"{source.name}: cannot be made with the options {source.options}: {told}; {cure}") from error

    def row(index: int) -> Row:
        entry = entries[index]
        truth = {"dataset": split, "entry": entry}
        columns = {"messages": [{"role": "user", "content": entry["question"]}], "ground_truth": truth, "dataset": REASONING_GYM}
        return Row(f"{source.name}:{index}", columns)

    return Rows(len(entries), row)


def _taskset(source: Source, _split: str, _seed: int) -> Rows:
    """The tasks of a task set of the package verifiers, which its environment plays (`rlvr.env`)."""
    lines = taskset_rows(source)
    return Rows(len(lines), lambda index: Row(f"{source.name}:{index}", json.loads(lines[index])))


def _file(path: Path, name: str) -> Rows:
    reader = _READERS.get(data_suffix(path.name))
    if reader is None:
        raise DataError(f"{name}: unknown kind of file; known are {', '.join(DATA_SUFFIXES)}, each also as .gz")
    refuse_empty(path, name)
    try:
        with path.open("rb") as file:
            is_zipped = file.read(2) == _GZIP
        if not is_zipped and path.suffix.lower() == ".gz":
            raise DataError(f"{name}: not a gzip file, whatever its name says; rename it, or fetch it again")
        if not is_zipped and data_suffix(path.name) in _TABLES:
            return reader(mapped(path), name)
        data = path.read_bytes()
        content = gzip.decompress(data) if is_zipped else data
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{name}: broken gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror}") from None
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
        except (ValueError, RecursionError) as error:  # a number of more digits than Python converts, or too many brackets
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
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: {str(error).partition(';')[0]}; mend the file") from None
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


def _numbered(rows: TableRows, name: str) -> Rows:
    """Rows of a table, whose places are numbers from 0."""
    return Rows(len(rows), lambda index: Row(f"{name}:{index}", rows[index]))


def _table(content: Any, name: str, read: Callable[[Any, str], TableRows]) -> Rows:
    return _numbered(read(content, name), name)


def _saved(path: Path, source: Source) -> Rows:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise DataError(f"{source.name}: broken saved Arrow folder ({error}); save it again") from None
    if isinstance(dataset, datasets.DatasetDict):
        if source.split not in dataset:
            raise DataError(f"{source.name}: no split {source.split!r}; set split to one of {', '.join(dataset)}")
        dataset = dataset[source.split]
    return _numbered(dataset_rows(dataset), source.name)


def _hub(source: Source) -> Rows:
    import datasets

    try:
        reach_hub()
        dataset = datasets.load_dataset(source.name, source.subset, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{source.name}: no file here, and the hub does not give it ({' '.join(str(error).split())}); "
            "check name, subset, split and revision, and the network, or give the path of a local copy"
        ) from None
    return _numbered(dataset_rows(dataset), "/".join(part for part in (source.name, source.subset, source.split) if part))


_READERS: dict[str, Callable[[Any, str], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".parquet": partial(_table, read=parquet_rows),
    ".arrow": partial(_table, read=arrow_rows),
}
_TABLES = (".parquet", ".arrow")
"""Kinds of files of which only what is asked for is loaded."""
