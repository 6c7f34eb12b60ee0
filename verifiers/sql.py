"""sql: a query is right where it returns the rows of the gold query, on a SQLite database that it cannot change.

The ground truth is {"sql": gold query, "db": path of a database} or {"sql": ..., "schema": statements that build one}.
The order of rows counts only where the gold query orders them.
"""

import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, pass_or_fail, shorten
from tulu.verifiers.json_text import unfenced
from tulu.verifiers.text import after_thinking, last_tag

_MOST_ROWS = 100_000
_SECONDS = 2.0
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock."""
_MOST_BYTES = 16 << 20
_DECIMALS = 6
"""Decimals to which numbers are compared."""
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zeroblob", "random", "randomblob"}
_ORDERED = re.compile(r"\border\s+by\b[^()]*$", re.IGNORECASE)
"""An `order by` of the whole query, and not of a subquery: no bracket follows it."""


class _Refused(Exception):
    """A query that costs too much or returns too much."""


def _allow(action: int, _first: str | None, function: str | None, _database: str | None, _trigger: str | None) -> int:
    """SQLite asks this before each action of a query: reading is allowed, except through a forbidden function."""
    if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and (function or "").lower() in _FORBIDDEN):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


@contextmanager
def _database(gold: dict[str, Any]) -> Iterator[sqlite3.Connection]:
    """The database of a ground truth: a file opened for reading only, or a new one in memory."""
    if "db" in gold:
        connection = sqlite3.connect(f"{Path(gold['db']).resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    else:
        connection = sqlite3.connect(":memory:")
        connection.executescript(gold["schema"])
    try:
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        yield connection
    finally:
        connection.close()


def _run_query(connection: sqlite3.Connection, query: str) -> list[tuple[Any, ...]]:
    """The rows of a single statement that only reads; sqlite3.Error or _Refused for any other."""
    connection.set_authorizer(_allow)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    ends = time.monotonic() + _SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    rows: list[tuple[Any, ...]] = []
    size = 0
    for row in connection.execute(query):
        rows.append(tuple(_comparable(value) for value in row))
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(rows) > _MOST_ROWS or size > _MOST_BYTES:
            raise _Refused(f"returns more than {_MOST_ROWS} rows or {_MOST_BYTES >> 20} MB")
    return rows


def _comparable(value: Any) -> Any:
    """A value such that 2 equals 2.0, while a number never equals its text."""
    if isinstance(value, float):
        return "number", round(value, _DECIMALS)
    return ("number", value) if isinstance(value, int) else value


def check(gold: Any) -> None:
    """GoldError unless the gold query runs on its database."""
    if not isinstance(gold, dict) or not isinstance(gold.get("sql"), str) or ("db" in gold) == ("schema" in gold):
        raise GoldError("ground_truth must be {sql, db} or {sql, schema}")
    source = gold.get("db", gold.get("schema"))
    if not isinstance(source, str):
        raise GoldError("db must be the path of a file, schema must be SQL")
    try:
        if "db" in gold and not Path(source).is_file():
            raise GoldError(f"there is no database {shorten(source)}")
        with _database(gold) as connection:
            _run_query(connection, gold["sql"])
    except (sqlite3.Error, sqlite3.Warning, _Refused, OSError, ValueError, OverflowError) as fault:
        raise GoldError(f"the gold query fails: {fault}") from fault


@lru_cache(maxsize=256)
def _gold_rows(sql: str, source: str, is_file: bool) -> list[tuple[Any, ...]]:
    with _database({"db" if is_file else "schema": source}) as connection:
        return _run_query(connection, sql)


def query_in(completion: str) -> str:
    """The query of a completion: the last `<solution>` tag, else the last fenced block, else all that follows the thinking."""
    text = after_thinking(completion)
    tagged = last_tag(text, "solution")
    return unfenced(text if tagged is None else tagged)


def strict(case: Case) -> Verdict:
    """1 where the query returns the rows of the gold query; 0 where it fails, writes, or costs too much."""
    gold, query = case.gold, query_in(case.completion)
    expected = _gold_rows(gold["sql"], str(gold.get("db", gold.get("schema"))), "db" in gold)
    try:
        with _database(gold) as connection:
            rows = _run_query(connection, query)
    except (sqlite3.Error, sqlite3.Warning, _Refused, ValueError, OverflowError, MemoryError) as fault:
        return Verdict(0.0, detail=shorten(f"{type(fault).__name__}: {fault}", 200))
    ordered = _ORDERED.search(gold["sql"]) is not None
    same = rows == expected if ordered else Counter(rows) == Counter(expected)
    return pass_or_fail(same, f"{len(rows)} rows, {len(expected)} wanted")


SQL = Verifier(check=check, strict=strict)
