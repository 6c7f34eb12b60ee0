"""Whose results a folder holds: a task and a suite of the same name would write the same file."""

import json
from pathlib import Path
from typing import Literal

from tulu.errors import ResumeError

RESULTS = "results.json"


def refuse_others(folder: Path, kind: Literal["task", "suite"]) -> None:
    """Raise ResumeError where a folder holds the results of a suite and a task is to be written there, or the other way round."""
    try:
        found = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # There is none, or it is damaged: nobody loses anything that could be read.
        return
    other = "suite" if kind == "task" else "task"
    if isinstance(found, dict) and kind not in found and isinstance(name := found.get(other), str):
        raise ResumeError(
            f"{folder}: holds the results of the {other} {name}, which those of a {kind} would replace\n"
            f"Give another --out or another name, or run with --fresh to replace them."
        )
