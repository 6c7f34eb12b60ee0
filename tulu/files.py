"""Files that are either the old one or the new one, never half of it."""

import os
import shutil
from pathlib import Path


def write_atomic(file: Path, text: str) -> None:
    """Write beside and rename."""
    partial = file.with_name(f".partial-{file.name}")
    try:
        with partial.open("w") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        partial.rename(file)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring every file below to the disk, so that the rename that follows cannot overtake them."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def remove_partials(folder: Path) -> None:
    """Clear away what a session that died left half written."""
    for path in folder.glob(".partial-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
