"""How the files looked that a run began with, so that a finished stage, which reads none of them, tells that they changed."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import xxhash

from tulu.config.schema import Source
from tulu.data.sources import local_files

EDGE = 1 << 20
"""Bytes at the beginning and at the end of a file that are looked at."""
WEIGHTS = ("*.safetensors", "*.bin", "config.json")
"""The files of a model folder that decide on what is trained from there."""


def looks_of(sources: Iterable[Source], start: str | None) -> dict[str, dict[str, Any]]:
    """The look of each source that lies in files here, and of the model that a stage starts from, by its name."""
    files = {source.name: local_files(source) for source in sources}
    if start is not None:
        files[start] = sorted(file for pattern in WEIGHTS for file in Path(start).glob(pattern))
    looks: dict[str, dict[str, Any]] = {}
    for name, found in files.items():
        # What cannot be read is told by whoever reads the rows.
        with suppress(OSError):
            looks |= {name: _look(found)} if found else {}
    return looks


def _look(files: Sequence[Path]) -> dict[str, Any]:
    """Bytes, times and a digest of both ends of some files; `whole` where these ends are all of them."""
    ends, facts = xxhash.xxh3_128(), [file.stat() for file in files]
    for file, fact in zip(files, facts, strict=True):
        ends.update(f"{file.name}:{fact.st_size}".encode())
        with file.open("rb") as stream:
            ends.update(stream.read(EDGE))
            stream.seek(max(EDGE, fact.st_size - EDGE))
            ends.update(stream.read(EDGE))
    return {
        "bytes": sum(fact.st_size for fact in facts),
        "ends": ends.hexdigest(),
        "whole": all(fact.st_size <= 2 * EDGE for fact in facts),
        "written": max(fact.st_mtime_ns for fact in facts),
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is to be said of the names whose look is another one; of what is not known any more nothing is."""
    lines = []
    for name, look in now.items():
        known = before.get(name)
        if not isinstance(known, dict):
            continue
        if look["bytes"] != known.get("bytes"):
            lines.append(f"{name} has changed since it began ({known.get('bytes')} bytes, now {look['bytes']})")
        elif look["ends"] != known.get("ends"):
            lines.append(f"{name} has changed since it began")
        elif not look["whole"] and look["written"] != known.get("written"):
            lines.append(f"{name} was written again since it began, and may have changed")
    return lines
