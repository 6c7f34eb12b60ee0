"""Files of a run as they are found: what cannot be read is named and left out, because a report tells of failed runs too."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]

_LINE = 1 << 26
"""Longest line that is read, in bytes; a longer one is damage."""


@dataclass
class Faults:
    """What could not be read, as lines for people."""

    folder: Path
    """Files are named relative to it."""
    lines: list[str] = field(default_factory=list)

    def add(self, file: Path, problem: str) -> None:
        """Note a problem with a file."""
        name = file.relative_to(self.folder) if file.is_relative_to(self.folder) else file
        self.lines.append(f"{name}: {problem}")


def read_json(file: Path, faults: Faults) -> Object:
    """The JSON object in a file; {} where there is none or it cannot be read, which is noted."""
    return _read_object(file, json.loads, faults)


def read_yaml(file: Path, faults: Faults) -> Object:
    """The same of a YAML file."""
    return _read_object(file, yaml.safe_load, faults)


def _read_object(file: Path, parse: Callable[[str], Any], faults: Faults) -> Object:
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        faults.add(file, f"cannot be read ({_reason(error)})")
        return {}
    if not isinstance(found, dict):
        faults.add(file, f"holds no object but {type(found).__name__}")
        return {}
    return found


def read_lines(file: Path, faults: Faults, most: int | None = None) -> list[Object]:
    """The objects of a JSONL file, the first `most` of them; damaged lines are counted and the first is named.

    A last line without its end is being written, or was cut when its process died: it is passed over without a word.
    """
    rows: list[Object] = []
    damaged: list[int] = []
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(_LINE), b""), 1):
                if not line.endswith(b"\n") and len(line) < _LINE:
                    break
                if (row := _object(line)) is None:
                    damaged.append(number)
                else:
                    rows.append(row)
                if most is not None and len(rows) >= most:
                    break
    except FileNotFoundError:
        return []
    except OSError as error:
        faults.add(file, f"cannot be read ({_reason(error)})")
    if damaged:
        faults.add(file, f"{len(damaged)} damaged lines are left out, the first is line {damaged[0]}")
    return rows


def _object(line: bytes) -> Object | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def number(value: Any) -> float | None:
    """A finite number, or None for everything else that may stand in a file."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def part(holder: Any, name: str) -> Object:
    """An entry that should be an object, as one."""
    found = holder.get(name) if isinstance(holder, dict) else None
    return found if isinstance(found, dict) else {}


def listed(value: Any) -> list[Any]:
    """An entry that should be a list, as one."""
    return list(value) if isinstance(value, list | tuple) else []


def pair(value: Any) -> tuple[float, float] | None:
    """An interval as two numbers, or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
