"""Data that was tokenised elsewhere: files of token ids with a mask of the trained ones beside each, as OLMo-core reads them.

    token_ids_part_0000.npy      token ids end to end, whole numbers without a header (numpy.memmap, tofile)
    labels_mask_part_0000.npy    as many bytes: 1 where the token is trained

A document ends with the end-of-text token. Nothing is copied: an index says where each document begins and ends, and a row's
tokens are read from the files when a step draws it.

reference: NumpyPackedFSLDataset of OLMo-core, src/olmo_core/data/{numpy_dataset,utils}.py @ 9e97471, by which the SFT of Olmo 3
read its data: boundaries by the end-of-text token, file by file, so what follows the last one in a file belongs to no document;
longer documents are cut off; the numbers are of the smallest type that holds the vocabulary. It also trains a document's first
token where the mask says so, from the end of whatever document happens to lie before; here nothing predicts that token.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tulu.config.parts import Source
from tulu.config.shards import is_pattern
from tulu.data.mixing import sample_places
from tulu.data.on_disk import OnDisk
from tulu.data.row_report import RowReport
from tulu.data.token_cache import Part
from tulu.errors import DataError
from tulu.files import file_digest, sync_folder
from tulu.progress import track
from tulu.types import Completion, Group

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
}
"""The types of token ids, smallest first."""
_TOKENS, _MASK = "token_ids", "labels_mask"
"""How the names of the two files of a pair begin."""
_HEADER = b"\x93NUMPY"
"""How a file begins that numpy.save wrote."""
_WINDOW = 1 << 24
"""Tokens that are looked at at a time."""
_REPORTS = TypeAdapter(RowReport)


@dataclass(frozen=True)
class TokenFile:
    """One file of token ids and its mask."""

    tokens: str
    mask: str
    dtype: str
    """Type of the token ids."""
    label: str
    """What the ids of its rows begin with."""

    def open(self) -> tuple[OnDisk, OnDisk]:
        """Token ids and mask, of which slices are read."""
        return OnDisk(Path(self.tokens), DTYPES[self.dtype]), OnDisk(Path(self.mask), np.bool_)


@dataclass(frozen=True)
class FiledGroups:
    """G groups that lie in files of token ids, each a prompt and one completion."""

    files: Sequence[TokenFile]
    spans: NDArray[np.int64]
    """(G, 6) of each group: its file, its document's number there, which copy of it, the first token of its prompt and of its
    completion, and where the completion ends."""

    @cached_property
    def _opened(self) -> list[tuple[OnDisk, OnDisk]]:
        return [file.open() for file in self.files]

    def __len__(self) -> int:
        return len(self.spans)

    def group(self, index: int) -> Group:
        """One group; only its own tokens are read."""
        file, _, _, start, split, end = self.spans[index].tolist()
        tokens, mask = self._opened[file]
        completion = Completion(tokens[split:end].tolist(), mask[split:end].tolist())
        return Group(tokens[start:split].tolist(), (completion,), self.id(index))

    def id(self, index: int) -> str:
        """The id of one group: its file, and the number of its document there."""
        file, number, copy = self.spans[index, :3].tolist()
        return f"{self.files[file].label}:{number}" + (f"#{copy}" if copy > 1 else "")

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(G,) tokens of each group."""
        found: NDArray[np.int64] = self.spans[:, 5] - self.spans[:, 3]
        return found

    @property
    def completions(self) -> NDArray[np.int64]:
        """(G,) completions of each group."""
        return np.ones(len(self.spans), np.int64)


def token_paths(source: Source) -> list[Path]:
    """The files of token ids that a source names: a folder of them, a pattern, or one file; none where it holds other data."""
    path = Path(source.name).expanduser()
    if path.is_dir():
        found = sorted(path.glob(f"{_TOKENS}_*.npy"))
    elif is_pattern(source.name) and source.name.endswith(".npy"):
        found = sorted(Path(name) for name in glob(str(path), recursive=True) if Path(name).name.startswith(_TOKENS))
    else:
        found = [path] if path.suffix == ".npy" and path.is_file() else []
    if source.dtype is not None and not found:
        raise DataError(f"{source.name}: dtype belongs to files of token ids ({_TOKENS}_*.npy); remove it")
    return found


def token_files(paths: Sequence[Path], source: Source, tokenizer: "PreTrainedTokenizerBase") -> list[TokenFile]:
    """The files with their masks and their type. DataError, with everything that is wrong with any of them."""
    dtype: str = source.dtype or next(name for name, kind in DTYPES.items() if len(tokenizer) - 1 <= np.iinfo(kind).max)
    folder = Path(source.name).expanduser()
    files, problems = [], []
    for path in paths:
        mask = path.with_name(path.name.replace(_TOKENS, _MASK, 1))
        problems += [f"{path}: {problem}" for problem in _problems(path, mask, dtype)]
        label = f"{source.name.rstrip('/')}/{path.relative_to(folder)}" if folder.is_dir() else str(path)
        files.append(TokenFile(str(path.resolve()), str(mask.resolve()), dtype, label))
    if problems:
        raise DataError("\n".join([f"{source.name}: {len(problems)} problems with files of token ids", *problems]))
    return files


def _problems(path: Path, mask: Path, dtype: str) -> Iterator[str]:
    size, item = path.stat().st_size, np.dtype(DTYPES[dtype]).itemsize
    with path.open("rb") as stream:
        has_header = stream.read(len(_HEADER)) == _HEADER
    if has_header:
        yield "was written by numpy.save; write the numbers without a header, as array.tofile does"
    elif not size or size % item:
        yield f"its {size:,} bytes are no token ids of {item} bytes each ({dtype}); copy it again, or set dtype"
    if not path.name.startswith(_TOKENS):
        yield f"is not called {_TOKENS}_*.npy, so its mask cannot be found; rename both"
    elif not mask.is_file():
        yield f"its mask {mask.name} is not beside it; copy it there"
    elif not has_header and size % item == 0 and mask.stat().st_size != size // item:
        yield f"has {size // item:,} token ids of {dtype}, and {mask.name} {mask.stat().st_size:,} bytes, which are not as many"


def index_files(
    source: Source, files: Sequence[TokenFile], tokenizer: "PreTrainedTokenizerBase", max_length: int, drop_long: bool, seed: int
) -> tuple[FiledGroups, RowReport]:
    """Where the sampled documents lie, and what became of all of them. DataError where the files do not hold such documents."""
    report = RowReport(source.name)
    end_of_text = tokenizer.eos_token_id
    if end_of_text is None:
        raise DataError(f"{source.name}: this tokenizer has no end-of-text token, at which documents end; set its eos_token")
    found = [_documents(number, file, end_of_text, len(tokenizer), report) for number, file in enumerate(files)]
    documents = np.concatenate(found)
    places = sample_places(len(documents), source, seed)
    copies = np.arange(len(places)) // len(documents) + 1
    spans = np.column_stack([documents[places, :2], copies, documents[places, 2:]])
    return _usable(FiledGroups(files, spans), max_length, drop_long, report)


def _documents(number: int, file: TokenFile, end_of_text: int, vocabulary: int, report: RowReport) -> NDArray[np.int64]:
    """(D, 5) of each document of a file: the file, its number, its first token, its first trained token and where the last one
    ends; -1 where none is trained."""
    tokens, mask = file.open()
    ends: list[NDArray[np.int64]] = []
    for begin in track(range(0, len(tokens), _WINDOW), f"looking through {Path(file.tokens).name}"):
        window = tokens[begin : begin + _WINDOW]
        if (largest := int(window.max())) >= vocabulary:
            place = begin + int(window.argmax())
            cure = "the files are of another tokenizer, or dtype is another one"
            raise DataError(f"{file.label}: token id {largest:,} at place {place:,} is none of {vocabulary:,}; {cure}")
        if mask.largest(begin, begin + _WINDOW) > 1:
            raise DataError(
                f"{file.label}: {Path(file.mask).name} holds other bytes than 0 and 1, so it is no mask of trained tokens"
            )
        ends.append(np.flatnonzero(window == end_of_text) + begin + 1)
    end = np.concatenate(ends)
    if not len(end):
        cure = "the files are of another tokenizer, or dtype is another one"
        raise DataError(f"{file.label}: no end-of-text token ({end_of_text}), at which documents end; {cure}")
    start = np.concatenate([[0], end[:-1]])
    if rest := len(tokens) - int(end[-1]):
        report.note(f"{rest:,} tokens after the last end-of-text token belong to no document", file.label)
    first, last = _trained(mask, start, end)
    return np.column_stack([np.full(len(end), number), np.arange(len(end)), start, first, last])


def _trained(mask: OnDisk, start: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first trained token of each document and the place after the last one; -1 where none is trained."""
    first, last = np.full(len(start), -1), np.full(len(start), -1)
    # Documents in runs of about a window, so that the places of trained tokens are never held for a whole file.
    cuts = np.flatnonzero(np.diff(start // _WINDOW)) + 1
    for few in np.split(np.arange(len(start)), cuts):
        begin = int(start[few[0]])
        places = np.flatnonzero(mask[begin : int(end[few[-1]])]) + begin
        low, high = np.searchsorted(places, start[few]), np.searchsorted(places, end[few])
        some = high > low
        first[few[some]] = places[low[some]]
        last[few[some]] = places[high[some] - 1] + 1
    return first, last


def _usable(groups: FiledGroups, max_length: int, drop_long: bool, report: RowReport) -> tuple[FiledGroups, RowReport]:
    """Documents cut to max_length, or left out, and those without a trained token left out."""
    start, first, end = groups.spans[:, 3], groups.spans[:, 4], groups.spans[:, 5]
    report.rows = len(groups)
    # Nothing predicts the first token of a document.
    split = np.maximum(first, start + 1)
    untrained = (first < 0) | (end <= split)
    is_long = ~untrained & (end - start > max_length)
    lost = is_long & (np.full(len(groups), drop_long) | (split >= start + max_length))
    kept = ~untrained & ~lost
    for reason, which in (
        ("nothing to train on", untrained),
        (f"longer than {max_length} tokens" if drop_long else "nothing to train on after truncation", lost),
    ):
        for index in np.flatnonzero(which).tolist():
            report.drop(reason, groups.id(index))
    for index in np.flatnonzero(is_long & kept).tolist():
        report.truncate(groups.id(index), lost_end=True)
    spans = np.column_stack([groups.spans[:, :4], split, np.minimum(end, start + max_length)])[kept]
    if not len(spans):
        raise DataError(report.nothing_left())
    found = FiledGroups(groups.files, spans)
    report.tokens = int(found.lengths.sum())
    return found, report


def files_digest(files: Sequence[TokenFile]) -> str:
    """Hash of the contents of all files and masks."""
    contents = [file_digest(Path(path)) for file in files for path in (file.tokens, file.mask)]
    return xxhash.xxh3_128_hexdigest(json.dumps([contents, [file.dtype for file in files]]).encode())


def part_of(groups: FiledGroups, report: RowReport, content: str) -> Part:
    """Groups as a part of a mix, whose digest is that of the files' content and of what is read of it."""
    digest = xxhash.xxh3_128(content.encode())
    digest.update(np.ascontiguousarray(groups.spans).data)
    return Part(groups, report, digest.hexdigest())


def write_index(folder: Path, groups: FiledGroups, report: RowReport, content: str) -> None:
    """Keep an index as an entry of the cache."""
    partial = folder.with_name(f".partial-{folder.name}-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        np.ascontiguousarray(groups.spans).tofile(partial / "spans")
        meta: dict[str, Any] = {
            "token_files": [asdict(file) for file in groups.files],
            "content": content,
            "spans": file_digest(partial / "spans"),
            "report": _REPORTS.dump_python(report, mode="json"),
        }
        (partial / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        sync_folder(partial)
        if not folder.exists():
            partial.rename(folder)
    except OSError as error:
        raise DataError(f"{folder.parent}: the index of token files cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_index(folder: Path) -> Part | None:
    """The part that an entry of the cache indexes; None where it is an entry of another kind.

    DataError where its files are gone.
    """
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if "token_files" not in meta:
        return None
    files = [TokenFile(**file) for file in meta["token_files"]]
    if gone := [path for file in files for path in (file.tokens, file.mask) if not Path(path).is_file()]:
        raise DataError(f"{gone[0]}: not to be seen by this process; put the data on a file system that all processes share")
    spans = np.fromfile(folder / "spans", np.int64).reshape(-1, 6)
    return part_of(FiledGroups(files, spans), _REPORTS.validate_python(meta["report"]), str(meta["content"]))


def is_whole_index(folder: Path) -> bool:
    """Whether an entry is as it was written. What its files hold decides on the entry's name."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return bool(meta["spans"] == file_digest(folder / "spans"))
    except (OSError, ValueError, KeyError, TypeError):
        return False
