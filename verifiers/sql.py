"""sql: a query is right where it returns the rows of the gold query, on a SQLite database that it cannot change.

The ground truth is {"sql": gold query, "db": path of a database} or {"sql": ..., "schema": statements that build one}.
The order of rows counts only where the gold query orders them. Where it returns no rows, the same columns must be read.
"""

import math
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, pass_or_fail, shorten
from tulu.verifiers.json_text import fenced_blocks, unfenced
from tulu.verifiers.text import after_thinking, has_content, last_tag, visible_text

_MOST_ROWS = 100_000
_SECONDS = 2.0
"""CPU seconds of a query."""
_STEPS = 10_000
"""Instructions of SQLite's virtual machine between two looks at the clock."""
_MOST_BYTES = 16 << 20
_RELATIVE = 1e-9
"""Relative difference to which numbers that are no integers are equal."""
_NOTHING = 1e-12
"""What a sum of such numbers may leave where it should be 0."""
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN = {
    *("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "zeroblob", "random", "randomblob", "sqlite_offset"),
    # What they return depends on the connection and on the library, and not on the data.
    *("changes", "total_changes", "last_insert_rowid", "sqlite_version", "sqlite_source_id", "sqlite_log"),
    *("sqlite_compileoption_get", "sqlite_compileoption_used"),
}
_QUERY = re.compile(r"(?:\s|--[^\n]*+(?:\n|$)|/\*.*?\*/|\()*+(?:select|with|values)\b", re.IGNORECASE | re.DOTALL)
"""The start of a query, after comments and brackets."""
_FILE_FAULTS = ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_NOTADB", "SQLITE_CORRUPT")
"""Errors that are those of the database's file, and not of a query."""
_SQL_LABELS = ("sql", "sqlite", "sqlite3")


class _Refused(Exception):
    """A query that costs too much or returns too much."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What a query returns, and what it reads."""

    columns: int
    rows: list[tuple[Any, ...]]
    read: frozenset[tuple[str, str]]
    """Table and column of everything that the query reads."""


def _authorizer(read: set[tuple[str, str]]) -> Any:
    """The function that SQLite asks before each action of a query; it notes in `read` what is read."""

    def allow(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
        if action not in _READING or (action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN):
            return sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ:
            table = (first or "").lower()
            # Tables of SQLite's own say how the database was made, and not what it holds.
            if table.startswith("sqlite_"):
                return sqlite3.SQLITE_DENY
            read.add((table, (second or "").lower()))
        return sqlite3.SQLITE_OK

    return allow


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


def _run_query(connection: sqlite3.Connection, query: str) -> _Result:
    """What a single query returns; sqlite3.Error or _Refused for a statement of another kind, or one that costs too much."""
    if not _QUERY.match(query):
        raise _Refused("no query: it begins with neither SELECT nor WITH nor VALUES")
    read: set[tuple[str, str]] = set()
    connection.set_authorizer(_authorizer(read))
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    ends = time.thread_time() + _SECONDS
    connection.set_progress_handler(lambda: time.thread_time() > ends, _STEPS)
    rows: list[tuple[Any, ...]] = []
    size = 0
    cursor = connection.execute(query)
    if cursor.description is None:
        raise _Refused("no query: it has no columns")
    for row in cursor:
        rows.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(rows) > _MOST_ROWS or size > _MOST_BYTES:
            raise _Refused(f"returns more than {_MOST_ROWS} rows or {_MOST_BYTES >> 20} MB")
    return _Result(len(cursor.description), rows, frozenset(read))


def _is_ordered(query: str) -> bool:
    """Whether a query orders its rows, itself or in the subquery whose rows it passes on; GoldError where it cannot be read."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree: Any = sqlglot.parse_one(query, read="sqlite")
    except (SqlglotError, RecursionError, ValueError) as fault:
        raise GoldError(f"the gold query cannot be parsed: {shorten(str(fault))}") from fault
    ctes = {cte.alias_or_name.lower(): cte.this for cte in tree.find_all(exp.CTE)}
    seen: set[int] = set()
    while isinstance(tree, exp.Expression) and id(tree) not in seen:
        seen.add(id(tree))
        if tree.args.get("order"):
            return True
        tree = _passed_on(tree, ctes)
    return False


def _passed_on(tree: Any, ctes: dict[str, Any]) -> Any:
    """The subquery whose rows a query passes on as they come; None where it joins, groups, sorts or cuts them."""
    from sqlglot import exp

    if isinstance(tree, exp.Subquery | exp.Paren):
        return tree.this
    if not isinstance(tree, exp.Select) or any(tree.args.get(key) for key in ("joins", "group", "distinct", "laterals")):
        return None
    source = tree.args.get("from_") or tree.args.get("from")
    inner = source.this if source else None
    inner = ctes.get(inner.name.lower()) if isinstance(inner, exp.Table) else inner
    # The best three of a table are ordered in order to be chosen, and not in order to be shown.
    core = inner.this if isinstance(inner, exp.Subquery) else inner
    return inner if isinstance(core, exp.Expression) and not core.args.get("limit") else None


def _same_value(a: Any, b: Any) -> bool:
    """Whether two values are equal: 2 is 2.0, other numbers may differ in the tenth digit, and a text is no number."""
    if (isinstance(a, float) and isinstance(b, float | int)) or (isinstance(b, float) and isinstance(a, int)):
        return math.isclose(a, b, rel_tol=_RELATIVE, abs_tol=_NOTHING)
    return type(a) is type(b) and bool(a == b)


def _sort_key(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """What rows are sorted by, so that rows which count as equal lie at the same place."""
    return tuple((0, float(f"{value:.6g}"), "") if isinstance(value, float | int) else (1, 0.0, repr(value)) for value in row)


def _same_rows(rows: list[tuple[Any, ...]], expected: list[tuple[Any, ...]], ordered: bool) -> bool:
    if len(rows) != len(expected):
        return False
    if not ordered:
        if Counter(map(repr, rows)) == Counter(map(repr, expected)):
            return True
        rows, expected = sorted(rows, key=_sort_key), sorted(expected, key=_sort_key)
    return all(all(map(_same_value, a, b)) for a, b in zip(rows, expected, strict=True))


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
    _is_ordered(gold["sql"])


@lru_cache(maxsize=256)
def _gold_result(sql: str, source: str, is_file: bool) -> tuple[_Result, bool]:
    """What the gold query returns, and whether it orders its rows."""
    with _database({"db" if is_file else "schema": source}) as connection:
        return _run_query(connection, sql), _is_ordered(sql)


def query_in(completion: str) -> str:
    """The query of a completion: the last `<solution>` tag, else the last fenced block, else all that follows the thinking.

    A block that is labelled as SQL, or begins as a query does, comes before one that shows the output of it.
    """
    text = visible_text(after_thinking(completion))
    tagged = last_tag(text, "solution")
    text = text if tagged is None else tagged
    blocks = fenced_blocks(text)
    queries = [block for label, block in blocks if label in _SQL_LABELS] or [
        block for label, block in blocks if _QUERY.match(block)
    ]
    return queries[-1].strip() if queries else unfenced(text)


def strict(case: Case) -> Verdict:
    """1 where the query returns the rows of the gold query; 0 where it fails, writes, or costs too much."""
    gold, query = case.gold, query_in(case.completion)
    if not has_content(query):
        return Verdict(0.0, detail="no query")
    expected, ordered = _gold_result(gold["sql"], str(gold.get("db", gold.get("schema"))), "db" in gold)
    try:
        with _database(gold) as connection:
            result = _run_query(connection, query)
    except (sqlite3.Error, sqlite3.Warning, _Refused, ValueError, OverflowError, MemoryError) as fault:
        if getattr(fault, "sqlite_errorname", "").startswith(_FILE_FAULTS):
            raise
        return Verdict(0.0, detail=shorten(f"{type(fault).__name__}: {fault}", 200))
    if result.columns != expected.columns:
        return Verdict(0.0, detail=f"{result.columns} columns, {expected.columns} wanted")
    if not expected.rows and not result.rows and not expected.read <= result.read:
        # Any condition that is never true returns no rows; that alone proves nothing.
        missing = ", ".join(sorted(f"{table}.{column}" for table, column in expected.read - result.read))
        return Verdict(0.0, detail=shorten(f"no rows, and {missing} is not read", 200))
    same = _same_rows(result.rows, expected.rows, ordered)
    return pass_or_fail(same, f"{len(result.rows)} rows, {len(expected.rows)} wanted")


SQL = Verifier(check=check, strict=strict, needs=("sqlglot",))
