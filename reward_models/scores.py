"""Scores in and out: JSONL rows {"id", "subset", "chosen": x | [x…], "rejected": y | [y…]}, a missing score being null."""

import gzip
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tulu.errors import DataError
from tulu.reward_models.sections import KNOWN, TIES, Data, Scored

_KEYS = "id, subset, chosen and rejected"


def read_scores(path: Path, data: Data) -> list[Scored]:
    """Rows of a scores file, for `summarize`; DataError lists every broken line as FILE:LINE."""
    items, problems = [], []
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            items.append(parse_row(json.loads(line), data, where))
        except json.JSONDecodeError as error:
            problems.append(f"{where}: not JSON ({error.msg}, column {error.colno}); a scores file holds one object a line")
        except DataError as error:
            problems.append(str(error))
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise DataError("\n".join([*problems[:10], *more]))
    if not items:
        raise DataError(f"{path}: holds no rows; write one object a line, with {_KEYS}")
    return items


def parse_row(row: object, data: Data, where: str) -> Scored:
    """One row of a scores file; DataError names the key that is wrong."""
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
    return float(value)


def _credit(value: object, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise DataError(f"{where}: credit: {value!r} is not a share between 0 and 1")
    return float(value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; --scores takes a JSONL file of rows with {_KEYS}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder; --scores takes one JSONL file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); --scores takes a JSONL file") from None
    except (gzip.BadGzipFile, PermissionError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
