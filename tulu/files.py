"""Files that are either the old one or the new one, never half of it, and logs of rows that survive a crash."""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from tulu.errors import RecipeError, ResumeError

T = TypeVar("T")

CHUNK = 1 << 24
"""Bytes of a file that are in memory while its digest is taken."""

_NO_PLACE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder belongs"),
    errno.ENOENT: "nothing can be made there",
}
"""Why a folder or a file cannot be made, and what to do about it."""


def make_folder(folder: Path) -> None:
    """Make a folder for what a command is about to write, and those above it. RecipeError where there can be none."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise no_place(folder, error) from error


def make_room_for(file: Path, option: str) -> None:
    """Make the folder of a file that a command writes at its end, given as `option`. RecipeError where it cannot be written."""
    if file.is_dir():
        raise RecipeError(f"{option} {file}: is a folder; name a file, such as {file / 'result'}")
    if file.exists() and not file.is_file():
        # It would be replaced, and a device or a pipe is not there for that.
        raise RecipeError(f"{option} {file}: is a device or a pipe, and no file; name a file")
    make_folder(file.parent)
    partial = _partial(file)
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise no_place(file, error, option) from error


def no_place(path: Path, error: OSError, options: str = "--runs, --out") -> RecipeError:
    """The refusal of a command whose results cannot be written there; nothing was done yet. `options` name another place."""
    why = _NO_PLACE.get(error.errno or 0, "choose another disk")
    return RecipeError(f"{path}: cannot be made ({error.strerror or error}); {why}, or name another place ({options})")


def _partial(file: Path) -> Path:
    """Where a file lies until all of it is written."""
    return file.with_name(f".partial-{file.name}")


def write_atomic(file: Path, text: str) -> None:
    """Write the text beside the file and rename it."""
    partial = _partial(file)
    try:
        with partial.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring every file below the folder to the disk, so that a rename that follows cannot overtake them."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def file_digest(file: Path) -> str:
    """Hash of a file's bytes, which finds damage; it is no protection against somebody who means to deceive."""
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(min(CHUNK, file.stat().st_size + 1)))
    with file.open("rb", buffering=0) as handle:
        while count := handle.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def file_fault(file: Path, name: str, expected: Sequence[Any]) -> str:
    """What is wrong with a file of which [bytes, digest] are known; empty where it is as it was written."""
    size, digest = expected
    try:
        found = file.stat().st_size
        if found != size:
            return f"{name} has {found} bytes of {size}"
        return f"{name} is not what was written" if digest is not None and file_digest(file) != digest else ""
    except OSError as error:
        return f"{name} cannot be read ({error.strerror or error})"


def remove_partials(folder: Path) -> None:
    """Remove what a session that died left half written in the folder."""
    for path in folder.glob(".partial-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def finite(value: Any) -> Any:
    """A tree of plain values with null in place of NaN and infinities, which JSON cannot write."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return value


def json_text(value: Any) -> str:
    """Indented JSON, in which NaN and infinities are null."""
    return json.dumps(finite(value), indent=2, ensure_ascii=False)


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """What changed between two trees of plain values, as lines `key.path: old -> new`."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {json.dumps(before)} -> {json.dumps(after)}"]


class JsonLines:
    """A file of JSON objects, one a line, that grows by whole rows and survives a crash.

    A row is on the disk when `append` returns. A last line that does not end was cut by a crash; it is removed before the
    file is read or extended. Only a newline ends a line: text in a row may hold any other separator of Unicode.
    """

    def __init__(self, path: Path, default: Callable[[Any], Any] | None = None) -> None:
        """`default` makes something that JSON can write of what it cannot, as in `json.dumps`; without it that is a TypeError."""
        self.path = path
        self._default = default

    def has_rows(self) -> bool:
        """Whether the file is there and holds a row that was not cut."""
        self._remove_cut_line()
        return self.path.exists() and self.path.stat().st_size > 0

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the end of the file."""
        self._remove_cut_line()
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json_lines(rows, self._default))
            stream.flush()
            os.fsync(stream.fileno())

    def read(self, parse: Callable[[dict[str, Any], str], T]) -> list[T]:
        """The result of `parse(row, "FILE:LINE")` for every row; nothing where there is no file.

        Raises ResumeError with file and line where a line is no JSON object, or `parse` raises a KeyError, TypeError or
        ValueError.
        """
        if not self.path.exists():
            return []
        self._remove_cut_line()
        rows = []
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                where = f"{self.path}:{number}"
                try:
                    rows.append(parse(_object(line), where))
                except (KeyError, TypeError, ValueError) as error:
                    raise ResumeError(f"{where}: not a row of this command ({error}); --fresh starts over") from error
        return rows

    def keep(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Remove the rows for which `predicate` is false, and every line that is no JSON object."""
        if not self.path.exists():
            return
        self._remove_cut_line()
        kept = []
        with self.path.open("rb") as stream:
            for line in stream:
                with suppress(ValueError):
                    if predicate(_object(line)):
                        kept.append(line.decode())
        write_atomic(self.path, "".join(kept))

    def _remove_cut_line(self) -> None:
        """Cut the file after its last newline."""
        if not self.path.exists():
            return
        with self.path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - 1))
            if stream.read(1) in (b"", b"\n"):
                return
            stream.seek(0)
            whole = stream.read().rfind(b"\n") + 1
        os.truncate(self.path, whole)


class PinnedLog(JsonLines):
    """A log whose rows were all made with the same settings, which stand in a file beside it."""

    def __init__(
        self, path: Path, settings_path: Path, settings: Mapping[str, Any], default: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__(path, default)
        self.settings_path = settings_path
        # They are compared with what a file gives back, in which a tuple is a list.
        self.settings = json.loads(json_text(settings))

    def changes(self) -> list[str]:
        """The settings that the rows were not made with, none where there are no rows. Raises RecipeError if no file says it."""
        if not self.has_rows():
            return []
        if not self.settings_path.exists():
            missing = f"{self.path.stem} without a {self.settings_path.name} that says how they were made"
            raise RecipeError(f"{self.path}: {missing}; use another --out, or --fresh")
        try:
            before = json.loads(self.settings_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecipeError(f"{self.settings_path}: is damaged ({error}); use another --out, or --fresh") from error
        return differences(before, self.settings)

    def open(self, fresh: bool) -> None:
        """Make the log ready for more rows; a fresh one loses those it has. Raises RecipeError if other settings made them."""
        if fresh:
            self.remove()
        if changes := self.changes():
            listed = "".join(f"\n  {line}" for line in changes)
            made = f"{self.path.parent} holds {self.path.stem} made with other settings"
            raise RecipeError(f"{made}:{listed}\nUse another --out, or --fresh to start over.")
        make_folder(self.path.parent)
        write_atomic(self.settings_path, json_text(self.settings))

    def remove(self) -> None:
        """Delete the log and its settings."""
        self.path.unlink(missing_ok=True)
        self.settings_path.unlink(missing_ok=True)


def json_lines(rows: Iterable[Mapping[str, Any]], default: Callable[[Any], Any] | None = None) -> str:
    """The rows as JSON, one a line."""
    text = "".join(json.dumps(row, ensure_ascii=False, default=default) + "\n" for row in rows)
    # Half a surrogate pair, which a row of data may hold, has no UTF-8; it becomes \ud83d, which JSON reads as what it was.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; ValueError where there is none."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"{type(row).__name__} where an object belongs")
    return row
