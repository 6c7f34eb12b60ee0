"""Keeps what many kills showed beside the other results of this project."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu.files import write_atomic
from tulu.train.manifest import environment

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


def keep(name: str, command: str, figures: Mapping[str, Any]) -> None:
    """Write a result with versions, commit, hardware and the command that it comes from."""
    report = {**figures, "environment": {**environment(), "command": command.split()}}
    write_atomic(RESULTS / name, json.dumps(report, indent=2) + "\n")
