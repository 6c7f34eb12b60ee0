"""Data sets of several files: a folder of shards as the hub keeps them, or a pattern such as data/*.parquet."""

import re
from collections.abc import Iterable, Sequence
from glob import glob, has_magic
from pathlib import Path

from tulu.config.locate import DATA_SUFFIXES, data_suffix
from tulu.errors import DataError, nearest

_ABOUT = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "metadata.json", "config.json", "index.json")
)
"""Names of files that describe data and hold none."""
_SHARD = re.compile(r"^(?P<split>\w+(?:[.-]\w+)*?)-(?P<number>\d{5})-of-(?P<count>\d{5})(?=[.-]|$)")
"""A shard as the hub and `datasets` name it, such as train-00000-of-00002.parquet."""
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in names of files that say which split they hold (huggingface/datasets @ 3.0, data_files.py)."""
_WORDS = {word: split for split, words in _SPLITS.items() for word in words}
_KINDS = {".ndjson": ".jsonl"}
"""Suffixes of one kind of file."""


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that match it, such as data/*.parquet."""
    return has_magic(name) and not Path(name).expanduser().exists()


def matching_files(pattern: str) -> list[Path]:
    """The data files that match a pattern, in their natural order. ** stands for any number of folders.

    DataError where there are none, or where they are of several kinds.
    """
    found = [Path(name) for name in glob(str(Path(pattern).expanduser()), recursive=True)]
    files = _data_files(found)
    if not files:
        raise DataError(f"{pattern}: no data file matches (looked from {Path.cwd()}); correct the pattern")
    return _of_one_kind(files, pattern)


def folder_files(folder: Path, name: str, split: str, subset: str | None = None) -> list[Path]:
    """The data files of one split of a folder, in their natural order; where no name says a split, all are that of training.

    Files that describe data, such as README.md and dataset_infos.json, are passed over. DataError where there are none, where
    they are of several kinds, or where a shard is missing.
    """
    if subset is not None:
        folder = folder / subset
        if not folder.is_dir():
            raise DataError(f"{name}: no folder {subset} there; correct subset, or leave it out")
    files = _data_files(path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    if not files:
        raise DataError(f"{name}: holds no {', '.join(DATA_SUFFIXES)} file and no saved Arrow folder; name one that does")
    by_split: dict[str | None, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    named = [each for each in by_split if each is not None]
    if named and None in by_split:
        shown = ", ".join(str(file.relative_to(folder)) for file in by_split[None][:3])
        raise DataError(f"{name}: names of some files say a split and others do not ({shown}); name the files by a pattern")
    wanted = _WORDS.get(split, split) if named else None
    if wanted not in by_split or (not named and split != "train"):
        known = ", ".join(sorted(named)) or "train alone"
        raise DataError(f"{name}: no split {split!r}{nearest(split, named)}; set split to one of those it has: {known}")
    chosen = _of_one_kind(by_split[wanted], name)
    _check_complete(chosen, name)
    return chosen


def _data_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        (path for path in paths if data_suffix(path.name) in DATA_SUFFIXES and path.name not in _ABOUT and path.is_file()),
        key=_natural,
    )


def _is_hidden(path: Path) -> bool:
    """Whether a path is that of a tool's own file, such as .cache/… or _SUCCESS."""
    return any(part.startswith((".", "_")) for part in path.parts)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """What puts part-2 before part-10."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]


def _split_of(path: Path) -> str | None:
    """The split that a file's name says, else the folder that it lies in; None where neither does."""
    if shard := _SHARD.match(path.name):
        return _WORDS.get(shard["split"], shard["split"])
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.lower().removesuffix(".gz").removesuffix(data_suffix(part)))
        if split := next((_WORDS[word] for word in words if word in _WORDS), None):
            return split
    return None


def _of_one_kind(files: Sequence[Path], name: str) -> list[Path]:
    suffixes = sorted({_KINDS.get(data_suffix(file.name), data_suffix(file.name)) for file in files})
    if len(suffixes) > 1:
        cure = f"name those of one kind by a pattern, such as *{suffixes[0]}"
        raise DataError(f"{name}: files of several kinds ({', '.join(suffixes)}), which may hold the same rows twice; {cure}")
    return list(files)


def _check_complete(files: Sequence[Path], name: str) -> None:
    """DataError where shards count themselves, as in train-00000-of-00002, and one of them is not there."""
    numbers: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        if shard := _SHARD.match(file.name):
            numbers.setdefault((file.parent, shard["split"], int(shard["count"])), set()).add(int(shard["number"]))
    for (_, split, count), found in numbers.items():
        if missing := sorted(set(range(count)) - found):
            shown = ", ".join(f"{split}-{number:05}-of-{count:05}" for number in missing[:3])
            raise DataError(
                f"{name}: {len(missing)} of {count} shards are missing ({shown}); fetch them, or name files by a pattern"
            )
