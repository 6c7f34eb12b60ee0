"""Scores in and out: JSONL rows {"id", "subset", "chosen": x | [x…], "rejected": y | [y…]}, a missing score being null."""

import math
from collections.abc import Mapping
from pathlib import Path

from tulu.config.schema import Source
from tulu.data.sources import load_rows
from tulu.errors import DataError
from tulu.reward_models.sections import KNOWN, TIES, Data, Scored

_KEYS = "id, subset, chosen and rejected"


def read_scores(path: Path, data: Data) -> list[Scored]:
    """Rows of a scores file, for `summarize`; DataError lists every broken line as FILE:LINE."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder; --scores takes one JSONL file")
    if not path.exists():
        raise DataError(f"{path}: no such file; --scores takes a JSONL file of rows with {_KEYS}")
    rows = load_rows(Source(name=str(path), fraction=1.0))
    items: list[Scored] = []
    problems: list[str] = []
    seen: dict[tuple[str, str, str], str] = {}
    for index in range(len(rows)):
        try:
            row = rows[index]
            item = parse_row(row.columns, data, row.id)
            if twin := _seen_before(row.columns, item, seen):
                raise DataError(f"{row.id}: id {item.id!r} of {item.subset!r} stands in {twin} too; give every row its own id")
            items.append(item)
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise DataError("\n".join([*problems[:10], *more]))
    return items


def _seen_before(row: object, item: Scored, seen: dict[tuple[str, str, str], str]) -> str | None:
    """Where a subset's id stood before. An evaluation's own rows are told apart by their index, whatever ids the data had."""
    if not isinstance(row, Mapping) or row.get("id") is None:
        return None
    key = (item.subset, item.id, str(row.get("index")))
    return None if seen.setdefault(key, item.where) == item.where else seen[key]


def parse_row(row: object, data: Data, where: str) -> Scored:
    """One row of a scores file, what is not finite being missing; DataError names the key that is wrong."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: not an object; a row has {_KEYS}")
    for key in ("chosen", "rejected"):
        if key not in row:
            raise DataError(f"{where}: no {key!r}; a row has {_KEYS}, a missing score being null")
    subset = row.get("subset", "all" if KNOWN[data] is None else None)
    if not isinstance(subset, str):
        raise DataError(f"{where}: subset: {subset!r} is not a name; a row has {_KEYS}")
    item_id = row.get("id")
    if subset == TIES and data == "v2" and not isinstance(item_id, str):
        raise DataError(f"{where}: id: {item_id!r}; a Ties id is ref:K or tied:K")
    name = where if item_id is None else str(item_id)
    chosen, rejected = _scores(row["chosen"], "chosen", where), _scores(row["rejected"], "rejected", where)
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
