"""Per-item scores on disk as they come, so that an evaluation that dies loses at most the items it was scoring."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu.errors import CheckpointError, DataError, RecipeError
from tulu.files import write_atomic
from tulu.reward_models.report import dumps, finite
from tulu.reward_models.score_file import parse_row
from tulu.reward_models.sections import Data, Scored

SCORES = "scores.jsonl"
SETTINGS = "settings.json"


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What was found for one item."""

    index: int
    """Of the item in its data."""
    scored: Scored
    details: Mapping[str, Any] = field(default_factory=dict)
    """More columns: token counts, tokens cut, judgements."""


def check_folder(folder: Path) -> None:
    """RecipeError where a file stands in the folder's place, or on the way to it."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise RecipeError(f"--out {folder}: {place} is a file where a folder belongs; name another folder with --out")


class ScoreStore:
    """The folder of an evaluation: settings.json, and scores.jsonl with a line per item in the `--scores` format."""

    def __init__(self, folder: Path, data: Data, settings: Mapping[str, Any], fresh: bool) -> None:
        """Open or make the folder. RecipeError if it holds scores made with other settings."""
        self.folder = folder
        self.path = folder / SCORES
        self.rows: dict[int, ItemScore] = {}
        settings = json.loads(dumps(settings))
        check_folder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                for name in (SCORES, SETTINGS, "scores.parquet", "results.json", "chart.png"):
                    (folder / name).unlink(missing_ok=True)
            held = self.path.exists() and self.path.stat().st_size > 0
            if held and not (folder / SETTINGS).exists():
                raise RecipeError(
                    f"{self.path}: scores without a {SETTINGS} that says how they were made; use another --out, or --fresh"
                )
            # A run that died before its first whole line has scored nothing that other settings could contradict.
            if held and b"\n" in self.path.read_bytes():
                self._same(settings)
            else:
                write_atomic(folder / SETTINGS, dumps(settings))
            self._read(data)
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written ({error.strerror}); give another folder with --out") from error

    def append(self, rows: Sequence[ItemScore]) -> None:
        """Add scored items, on the disk before this returns."""
        lines = "".join(_line(row) + "\n" for row in rows)
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(lines)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot be written ({error.strerror}); make room and run the same command again: it resumes"
            ) from error
        self.rows.update((row.index, row) for row in rows)

    def in_order(self) -> list[ItemScore]:
        """All items scored so far, in the order of the data."""
        return [self.rows[index] for index in sorted(self.rows)]

    def write_parquet(self) -> None:
        """scores.parquet: the same rows as columns."""
        # Half a second of imports that `--scores` does not need.
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [json.loads(_line(row)) for row in self.in_order()]
        partial = self.folder / ".partial-scores.parquet"
        pq.write_table(pa.Table.from_pylist([{**row, **_lists(row)} for row in rows]), partial)
        partial.rename(self.folder / "scores.parquet")

    def _same(self, settings: Mapping[str, Any]) -> None:
        before = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        changed = [
            f"  {key}: {before.get(key)!r} there, {settings.get(key)!r} now"
            for key in sorted({*before, *settings})
            if before.get(key) != settings.get(key)
        ]
        if changed:
            listed = "\n".join(changed)
            raise RecipeError(
                f"{self.folder} holds scores made with other settings:\n{listed}\nUse another --out, or --fresh to start over."
            )

    def _read(self, data: Data) -> None:
        """Rows of an earlier session; a last line that was cut in the middle is removed and its item scored again."""
        if not self.path.exists():
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            where = f"{self.path}:{number}"
            try:
                row = json.loads(line)
                index = row["index"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(f"{where}: not a row of an evaluation ({error}); use --fresh to start over") from error
            details = {key: value for key, value in row.items() if key not in _COLUMNS}
            self.rows[index] = ItemScore(index, parse_row(row, data, where), details)


_COLUMNS = ("index", "id", "subset", "chosen", "rejected", "credit")


def _line(row: ItemScore) -> str:
    scored = row.scored
    columns: dict[str, Any] = {
        "index": row.index,
        "id": scored.id,
        "subset": scored.subset,
        "chosen": list(scored.chosen),
        "rejected": list(scored.rejected),
    }
    if scored.credit is not None:
        columns["credit"] = scored.credit
    return json.dumps(finite({**columns, **row.details}), ensure_ascii=False)


def _lists(row: Mapping[str, Any]) -> dict[str, str]:
    """Nested columns as JSON text: their shapes differ from row to row."""
    flat = ("chosen", "rejected")
    return {key: json.dumps(value) for key, value in row.items() if key not in flat and isinstance(value, dict | list)}
