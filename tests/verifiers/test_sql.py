# ruff: noqa: E501 (many short cases)
"""Queries that know nothing of the rows, orders in every form, and the query among what a completion shows."""

from pathlib import Path

import pytest

from tulu.verifiers.registry import VERIFIERS

SCHEMA = (
    "create table t(id int, name text, score real, pts int); insert into t values (1,'a',1.5,10),(2,'b',2.5,10),(3,'c',null,5),(4,'d',0,7);"
    "create table u(id int, k text); insert into u values (1,'x'),(1,'y'),(2,'z');"
)
NO_ROWS = "select name from t where id>5"
KNOW_NOTHING = [
    "",
    "select 1 where 0",
    "select null where 0",
    "select 1,2,3 where 0",
    "reindex",
    "analyze",
    "vacuum",
    "begin",
    "commit",
    "pragma user_version",
    "explain select name from t",
    "explain query plan select 1",
    "select name from u",
    "select k from u where 0",
    "select id from t where 0",
    "select name from t where 0",
    "select name, id from t where 0",
    "select 'x' from t where id>5",
    "-- nothing",
    ";",
    "(",
    "```sql\n```",
    "<solution></solution>",
    "<solution>\u200b</solution>",
    "<think>select name from t where id>5",
    "<thinking>select name from t where id>5</thinking>",
    "select name from sqlite_master where 0",
    "values (1) limit 0",
    "insert into t values(1)",
    "create table x(a)",
    "drop table t",
    "savepoint a",
    "delete from t where 0",
    "update t set id=1 where 0",
    "select * from pragma_table_info('t') where 0",
    "with a as (select 1) select * from a where 0",
    "select",
]
COUNTERS = [
    "select changes()",
    "select total_changes()",
    "select last_insert_rowid()",
    "select CHANGES()",
    "select total_changes()+0",
    "select (select total_changes())",
    "select count(*) from (select total_changes())",
    "select count(*) from sqlite_master",
    "select count(*) from sqlite_schema",
    "select abs(random())%5",
    "select length(zeroblob(4))",
    "select length(randomblob(4))",
    "select sqlite_version()",
]
ORDERED = [
    "select name from t order by id desc",
    "select name from t order by lower(name) desc",
    "select name from t order by abs(id) desc",
    "select name from t order by id desc -- x (y)",
    "select name from t order by id desc /* ( */",
    "select name from t ORDER\nBY id desc",
    "select name from t order by (id) desc",
    "select name from t order by (select -t.id)",
    "select name from t order by case when id>2 then 0 else 1 end, id desc",
    "select name from t order by id desc limit 4",
    "select name from t order by id desc limit (4)",
    "select * from (select name from t order by id desc)",
    "with a as (select name from t order by id desc) select name from a",
    "select name from t union all select name from t where 0 order by 1 desc",
    "select name from t order by coalesce(score, 9) desc, id desc",
]
UNORDERED = [
    "select name from t",
    "select name from t where id in (select id from u order by id)",
    "select group_concat(name) from t",
    "select name, row_number() over (order by id desc) from t",
    "select name from (select * from t order by pts desc limit 4)",
    "select t.name from t join (select id from t order by id) a on a.id=t.id",
]
SHOWN = [
    "First:\n```sql\nselect name from t\n```\nOutput:\n```\na\nb\n```",
    "```sql\nselect name from t;\n```",
    "```\nselect name from t\n```\n```text\na\n```",
    "select name from t",
    "```sql\nselect name from t\n```\n\n| name |\n|---|",
    "<solution>```sql\nselect name from t\n```</solution>",
    "<solution>select name from t</solution>",
    "\ufeffselect name from t\u200b",
    "```SQL\nSELECT name FROM t\n```\nThis returns:\n```\nname\na\n```",
    "```sql select name from t```",
    "-- names\nselect name from t",
    "/* x */ select name from t",
    "select name from (select * from t)",
    "select name from t --```",
    "with a as (select name from t) select * from a",
    "```sqlite\nselect name from t\n```",
]


def score(completion: str, sql: str) -> float | None:
    verdict = VERIFIERS["sql"](completion, {"sql": sql, "schema": SCHEMA})
    assert verdict.status == "ok"
    return verdict.score


@pytest.mark.parametrize("completion", KNOW_NOTHING)
def test_no_rows_are_no_proof(completion: str) -> None:
    assert score(completion, NO_ROWS) == 0


def test_the_right_query_without_rows() -> None:
    assert (
        score(NO_ROWS, NO_ROWS)
        == score("select t.name from t where t.id > 10", NO_ROWS)
        == score("select * from (select name from t where id=9)", NO_ROWS)
        == 1
    )


@pytest.mark.parametrize("completion", COUNTERS)
def test_counters_of_the_connection_are_no_answer(completion: str) -> None:
    for sql in ("select count(*) from t", "select 4", "select 2", "select max(pts) - 3 from t"):
        assert score(completion, sql) == 0


@pytest.mark.parametrize("sql", ORDERED)
def test_an_order_is_seen_in_every_form(sql: str) -> None:
    VERIFIERS["sql"].check({"sql": sql, "schema": SCHEMA})
    assert (score(sql, sql), score("select name from t order by id", sql)) == (1, 0)


@pytest.mark.parametrize("sql", UNORDERED)
def test_the_order_of_a_part_is_no_order_of_the_whole(sql: str) -> None:
    assert score(sql + " order by 1 desc", sql) == 1


@pytest.mark.parametrize("completion", SHOWN)
def test_the_query_is_found(completion: str) -> None:
    assert score(completion, "select name from t") == 1


@pytest.mark.parametrize(
    ("query", "sql", "value"),
    [
        ("select 0.1+0.2", "select 0.3", 1), ("select sum(score)/3 from t", "select 4.0/3", 1), ("select 2", "select 2.0", 1), ("select 1e-7", "select 0", 0),
        ("select 2e-7", "select 1e-7", 0), ("select 1000000.25", "select 1000000.75", 0), ("select '2'", "select 2", 0), ("select null", "select 0", 0), ("select ''", "select null", 0),
        ("select 9007199254740993", "select 9007199254740992", 0), ("select 1e300*1e300", "select 1e300", 0), ("select 0.1+0.2 union all select 5", "select 5 union all select 0.3", 1),
        ("select id, id from t", "select id from t", 0), ("select id from t", "select id, id from t", 0),
    ],
)  # fmt: skip
def test_values(query: str, sql: str, value: float) -> None:
    assert score(query, sql) == value


def test_a_database_that_is_gone_is_not_the_fault_of_the_answer(tmp_path: Path) -> None:
    verdict = VERIFIERS["sql"]("select 1", {"sql": "select 1", "db": str(tmp_path / "gone.db")})
    assert (verdict.score, verdict.status) == (None, "error")
