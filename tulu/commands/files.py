"""Files that commands read and write: numbered lines of a source, and a target that appears only when all of it is written."""

import contextlib
import glob
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

import psutil

from tulu.data.faults import Unusable, odd_rows
from tulu.errors import DataError, RecipeError, TuluError

T = TypeVar("T")
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


def label(source: str) -> str:
    """The name of a source in messages."""
    return "standard input" if source == "-" else source


def read_rows(source: str, read: Callable[[Any, str], T], verb: str, option: str = "--in") -> list[T]:
    """What `read` makes of the JSON value and the place (FILE:LINE) of each line that is not blank.

    Raises one DataError that counts the lines which are no JSON, or of which `read` says that they cannot be `verb` (graded,
    attacked), and names the first of them. `option` is the one that names the file.
    """
    rows: list[T] = []
    problems: list[str] = []
    for number, line in lines(source, option):
        where = f"{label(source)}:{number}"
        try:
            rows.append(read(json.loads(line.decode()), where))
        except DataError as fault:
            text = fault.detail if isinstance(fault, Unusable) else str(fault)
            problems.append(text if text.startswith(where) else f"{where}: {text}")
        except UnicodeDecodeError as fault:
            problems.append(f"{where}: not UTF-8 (byte {fault.start + 1} of the line); convert the file to UTF-8")
        except json.JSONDecodeError as fault:
            problems.append(f"{where}: broken JSON at column {fault.colno} ({fault.msg}); mend or remove the line")
        except ValueError as fault:
            problems.append(f"{where}: broken JSON ({fault}); mend or remove the line")
        except RecursionError:
            problems.append(f"{where}: JSON nested too deep; mend or remove the line")
    if problems:
        raise odd_rows(problems, len(rows) + len(problems), verb, f"Correct or remove these lines first; nothing was {verb}.")
    if not rows:
        raise DataError(f"{label(source)}: no rows; give {option} a file that has some")
    return rows


def lines(source: str, option: str = "--in") -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not blank, with their numbers; gzip is unpacked. Raises DataError.

    `option` is the one that names the file.
    """
    name = label(source)
    try:
        with contextlib.ExitStack() as stack:
            file = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
            for number, line in enumerate(_unpacked(file, name), 1):
                text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
                if text:
                    yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise DataError(f"{name}: broken gzip file ({fault}); fetch it again") from None
    except IsADirectoryError:
        raise DataError(f"{source}: is a directory; give {option} a file of rows in it, or - for standard input") from None
    except FileNotFoundError:
        raise DataError(f"{source}: no such file (looked from {Path.cwd()}); correct {option}") from None
    except OSError as fault:
        raise DataError(f"{name}: cannot be read ({fault.strerror or fault}); give {option} a file of rows") from None


def _unpacked(file: BinaryIO, name: str) -> Iterable[bytes]:
    start = file.peek(2)[:2] if isinstance(file, io.BufferedReader) else b""
    if start == _GZIP:
        return gzip.open(file, "rb")
    if start and name.lower().endswith(".gz"):
        raise DataError(f"{name}: named .gz, but not gzip; rename it, or pack it with gzip")
    return file


def check_target(source: str, target: str) -> None:
    """Raise RecipeError where `target` cannot be written, or where writing it would destroy the source."""
    if target == "-":
        return
    path = Path(target)
    if path.is_dir():
        raise RecipeError(f"--out {target}: is a directory; name a file in it, such as {path / 'scored.jsonl'}")
    if not path.parent.is_dir():
        raise RecipeError(f"--out {target}: cannot be written, there is no directory {path.parent}; make it or name another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RecipeError(f"--out {target}: cannot be written, no permission; name another file")
    if not path.exists():
        # Permissions do not say that a disk is read-only, or that the system makes all files of a folder itself.
        try:
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            partial.touch()
            partial.unlink()
        except OSError as error:
            raise RecipeError(f"--out {target}: cannot be written ({error.strerror or error}); name another file") from error
    if source != "-" and path.is_file() and Path(source).exists() and path.samefile(source):
        raise RecipeError(f"--out {target}: is the same file as --in {source}; name another, so that the rows are kept")


@contextlib.contextmanager
def writing(target: str) -> Iterator[IO[str]]:
    """Open a file that appears under its name only when all of it is written, packed if its name ends in .gz; `-` is stdout.

    A target that exists and is no plain file (a device, a pipe, a link) is written to and never replaced. The partial files
    that killed processes left of the same target are removed. Raises TuluError where writing fails.
    """
    if target == "-":
        try:
            yield sys.stdout
        except BrokenPipeError:
            # The reader of our output has closed it; Python's own flush at exit must not fail once more.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    path = Path(target)
    replaced = not path.is_symlink() and (path.is_file() or not path.exists())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial") if replaced else path
    try:
        if replaced:
            _remove_stale(path)
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(partial.open("wb"))
            # The header names no file and no time, so that the same rows make the same file.
            packed = gzip.GzipFile("", "wb", 6, raw, 0) if path.suffix.lower() == ".gz" else None
            yield stack.enter_context(io.TextIOWrapper(packed or raw, encoding="utf-8"))
        if replaced:
            partial.replace(path)
    except OSError as fault:
        raise TuluError(
            f"{target}: cannot be written ({fault.strerror or fault}); free some space or name another file"
        ) from fault
    finally:
        if replaced:
            partial.unlink(missing_ok=True)


def _remove_stale(path: Path) -> None:
    """Remove the partial files of a target that belong to processes which ended."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        pid = partial.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if pid.isdecimal() and not _is_alive(int(pid)):
            partial.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        # A killed process stays as a zombie where its parent, such as a container's first process, never waits for it.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
