"""Scores in files: rows {"id", "subset", "chosen": x | [x…], "rejected": y | [y…]}, in which a missing score is null.

`read_scores` reads a file of any origin; `ScoreStore` writes one as scores come, so that an evaluation that dies loses at most
the items that it was scoring.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tulu.config.schema import Source
from tulu.data.sources import Row, load_rows
from tulu.errors import CheckpointError, DataError, RecipeError
from tulu.files import PinnedLog, finite
from tulu.reward_models.items import Scored, parse_rows
from tulu.reward_models.sections import KNOWN, Data, is_of_ties

_KEYS = "id, subset, chosen and rejected"
_COLUMNS = ("index", "id", "subset", "chosen", "rejected", "credit")
"""Columns of scores.jsonl that are no details."""


def read_scores(path: Path, data: Data) -> list[Scored]:
    """The rows of a scores file, for `summarize`. Raises DataError, which lists every broken line as FILE:LINE."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; --scores takes one JSONL file")
    if not path.exists():
        raise DataError(f"{path}: no such file; --scores takes a JSONL file of rows with {_KEYS}")
    places: dict[tuple[str, str, str], str] = {}

    def parse(row: Row) -> Scored:
        """The scores of a row. The rows of an evaluation have an index that tells them apart, whatever ids its data had."""
        item = parse_row(row.columns, data, row.id)
        if row.columns.get("id") is not None:
            first = places.setdefault((item.subset, item.id, str(row.columns.get("index"))), row.id)
            if first != row.id:
                raise DataError(f"{row.id}: id {item.id!r} of {item.subset!r} stands in {first} too; give every row its own id")
        return item

    return parse_rows(load_rows(Source(name=str(path), fraction=1.0)), parse)


def parse_row(row: Mapping[str, Any], data: Data, where: str) -> Scored:
    """One row of a scores file, in which a score that is not finite counts as missing.

    Raises DataError, which names the key that is wrong.
    """
    for key in ("chosen", "rejected"):
        if key not in row:
            raise DataError(f"{where}: no {key!r}; a row has {_KEYS}, a missing score being null")
    subset = row.get("subset", "all" if KNOWN[data] is None else None)
    if not isinstance(subset, str):
        raise DataError(f"{where}: subset: {subset!r} is not a name; a row has {_KEYS}")
    item_id = row.get("id")
    if is_of_ties(subset, data) and not isinstance(item_id, str):
        raise DataError(f"{where}: id: {item_id!r}; a Ties id is ref:K or tied:K")
    name = where if item_id is None else str(item_id)
    chosen, rejected = (_scores(row[key], key, where) for key in ("chosen", "rejected"))
    return Scored(name, subset, chosen, rejected, _credit(row.get("credit"), where), where)


def _scores(value: object, key: str, where: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise DataError(f"{where}: {key}: an empty list; it needs at least one score, null where it is missing")
    return tuple(_score(entry, key, where) for entry in values)


def _score(value: object, key: str, where: str) -> float:
    if value is None:
        return math.nan
    if isinstance(value, list) and len(value) == 1:
        # run_v2.py of allenai/reward-bench writes each score as [x].
        return _score(value[0], key, where)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: {key}: {value!r} is not a number; write a number, a list of numbers, or null")
    try:
        number = float(value)
    except OverflowError:
        digits = f"{str(value)[:12]}… ({len(str(value))} digits)"
        raise DataError(f"{where}: {key}: {digits} is no score; write a number below 1e308, or null") from None
    return number if math.isfinite(number) else math.nan


def _credit(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"{where}: credit: {value!r} is not a share between 0 and 1")
    return float(value)


@contextmanager
def writing(what: str, cure: str) -> Iterator[None]:
    """Turn an error of the disk into a CheckpointError that says what cannot be written, and the cure."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} cannot be written ({error.strerror or error}); {cure}") from error


def check_folder(folder: Path) -> None:
    """Raise RecipeError where a file stands in the folder's place, or on the way to it."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise RecipeError(f"--out {folder}: {place} is a file where a folder belongs; name another folder with --out")


class ScoreStore:
    """The folder of an evaluation: settings.json, and scores.jsonl with a row per item in the format of `--scores`."""

    def __init__(self, folder: Path, data: Data, settings: Mapping[str, Any], fresh: bool) -> None:
        """Open or make the folder and read its rows. Raises RecipeError if it holds scores made with other settings."""
        self.folder = folder
        self.log = PinnedLog(folder / "scores.jsonl", folder / "settings.json", settings)
        check_folder(folder)
        with writing(f"{folder}:", "give another folder with --out"):
            if fresh:
                for name in ("scores.parquet", "results.json", "chart.png"):
                    (folder / name).unlink(missing_ok=True)
            self.log.open(fresh)
        self.rows: dict[int, Scored] = dict(self.log.read(lambda row, where: _parse_item(row, data, where)))
        """The items scored so far, by their place in the data."""

    def append(self, rows: Mapping[int, Scored]) -> None:
        """Add scored items by their place in the data; they are on the disk when this returns."""
        with writing(f"{self.log.path}:", "make room and run the same command again: it resumes"):
            self.log.append(_as_row(index, scored) for index, scored in rows.items())
        self.rows.update(rows)

    def in_order(self) -> list[Scored]:
        """All items scored so far, in the order of the data."""
        return [self.rows[index] for index in sorted(self.rows)]

    def write_parquet(self) -> None:
        """Write scores.parquet: the same rows as columns."""
        # Half a second of imports that `--scores` does not need.
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [_as_row(index, self.rows[index]) for index in sorted(self.rows)]
        for row in rows:
            # The shapes of nested columns differ from row to row, so they are JSON text.
            nested = [key for key, value in row.items() if isinstance(value, dict | list) and key not in ("chosen", "rejected")]
            row.update({key: json.dumps(row[key]) for key in nested})
        partial = self.folder / ".partial-scores.parquet"
        pq.write_table(pa.Table.from_pylist(rows), partial)
        partial.rename(self.folder / "scores.parquet")


def _parse_item(row: Mapping[str, Any], data: Data, where: str) -> tuple[int, Scored]:
    """The index and the scores of a row of scores.jsonl. Raises DataError, which names the key that is wrong."""
    if "index" not in row:
        raise DataError(f"{where}: not a row of an evaluation (no 'index'); use --fresh to start over")
    details = {key: value for key, value in row.items() if key not in _COLUMNS}
    return row["index"], replace(parse_row(row, data, where), details=details)


def _as_row(index: int, scored: Scored) -> dict[str, Any]:
    """One row of scores.jsonl, in plain values of JSON."""
    columns = {"index": index, **asdict(scored)}
    details = columns.pop("details")
    del columns["where"]
    if scored.credit is None:
        del columns["credit"]
    return dict(finite({**columns, **details}))
