"""The files of single steps in a run's folder: completions of RLVR, and the answers of looks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu.config.job import STEP_NAME
from tulu.files import json_lines, write_atomic

SAMPLES = "samples"
"""The folder of a run that holds the answers of its looks."""
ROLLOUT_PART = 512
"""Completions in one part of a file of rollouts."""

Rows = Sequence[Mapping[str, Any]]


def write_rollouts(folder: Path, step: int, rows: Rows) -> None:
    """Write one step's completions, a row each, as step-000123.parquet."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(exist_ok=True)
    file = folder / f"{STEP_NAME.format(step)}.parquet"
    partial = file.with_name(f".partial-{file.name}")
    # Small parts, so that a reader who shows a few completions reads a few.
    table = pyarrow.Table.from_pylist([dict(row) for row in rows])
    pyarrow.parquet.write_table(table, partial, compression="zstd", row_group_size=ROLLOUT_PART)
    partial.rename(file)


def write_samples(folder: Path, step: int, rows: Rows) -> None:
    """Write the answers of one look, a row each, as step-000123.jsonl."""
    folder.mkdir(exist_ok=True)
    write_atomic(folder / f"{STEP_NAME.format(step)}.jsonl", json_lines(rows))
