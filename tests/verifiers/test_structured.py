import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tulu.verifiers.contract import GoldError
from tulu.verifiers.registry import VERIFIERS

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
GOOD = '{"name": "Ann", "age": 3}'


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (GOOD, 1),
        (f"<think>hm</think>\n```json\n{GOOD}\n```", 1),
        (f"<answer>{GOOD}</answer>", 1),
        ('{"name": "Ann"}', 0),
        ('{"name": "Ann", "age": -1}', 0),
        ('{"name": "Ann", "age": 3, "x": 1}', 0),
        ('{"name": "Ann", "age": 3, "age": 4}', 0),
        ('{"name": "Ann", "age": NaN}', 0),
        (f"Here: {GOOD}", 0),
        ("[" * 100_000, 0),
        ("", 0),
    ],
)
def test_json_schema(completion: str, score: float) -> None:
    assert VERIFIERS["json_schema"](completion, SCHEMA).score == score
    assert VERIFIERS["json_schema"](completion, json.dumps(SCHEMA)).score == score


@pytest.mark.parametrize("gold", ["{", 3, {"type": "nothing"}, {"$ref": "https://example.com/schema.json"}])
def test_bad_schemas(gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS["json_schema"].check(gold)


CALLS = [{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}, {"name": "time", "arguments": {}}]
BLOCK = '<tool_call>{"name": "weather", "arguments": {"days": 2.0, "city": "Oslo"}}</tool_call>'


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (BLOCK + '\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>', 1),
        (json.dumps(CALLS[::-1]), 1),
        ('[weather(city="Oslo", days=2), time()]', 1),
        ("```python\n[time(), weather(days=2, city='Oslo')]\n```", 1),
        (BLOCK, 0),
        (BLOCK * 2, 0),
        (json.dumps([*CALLS, CALLS[1]]), 0),
        (json.dumps(CALLS).replace("Oslo", "Rome"), 0),
        (json.dumps(CALLS).replace("2", '"2"'), 0),
        (json.dumps(CALLS).replace("2", "true"), 0),
        ("[weather(city=open('x'), days=2), time()]", 0),
        ("I would call weather and time.", 0),
        ("", 0),
    ],
)
def test_tool_call(completion: str, score: float) -> None:
    assert VERIFIERS["tool_call"](completion, CALLS).score == score
    assert VERIFIERS["tool_call"](completion, json.dumps(CALLS)).score == score


def test_no_call_is_right_where_none_is_wanted() -> None:
    assert VERIFIERS["tool_call"]("Hello!", []).score == 1
    assert VERIFIERS["tool_call"](BLOCK, []).score == 0
    assert VERIFIERS["tool_call"]("<tool_call>{</tool_call>", []).score == 0


GRID = {"header": ["House", "Name", "Pet"], "rows": [["1", "Eric", "cat"], ["2", "Ann", "dog"]]}
SOLVED = {"solution": {"House 1": {"Name": "eric", "Pet": "Cat"}, "House 2": {"Name": "Ann", "Pet": "dog"}}}


def test_zebra_logic() -> None:
    verifier = VERIFIERS["zebra_logic"]
    half = {"solution": {"House 1": {"Name": "Eric", "Pet": "dog"}, "House 2": {"Name": "Ann", "Pet": "cat"}}}
    for gold in (GRID, SOLVED, json.dumps(GRID)):
        verifier.check(gold)
        assert verifier(f"So: ```json\n{json.dumps(SOLVED)}\n```", gold).score == 1
        assert (verifier(json.dumps(half), gold).score, verifier(json.dumps(half), gold).detail) == (0, "2/4 cells")
        assert verifier(json.dumps(half) + json.dumps(SOLVED), gold).score == 1
        assert verifier(json.dumps(SOLVED)[:-3], gold).score == 0
        assert verifier("{" * 100_000, gold).score == 0
    with pytest.raises(GoldError):
        verifier.check({"header": ["House"], "rows": [[1, 2, 3]]})


BUILD = "create table t(a int, b text); insert into t values (1,'x'),(2,'y'),(2,'y');"


@pytest.mark.parametrize(
    ("query", "score"),
    [
        ("select a, b from t", 1),
        ("```sql\nselect a+0.0, b from t order by a desc\n```", 1),
        ("So <solution>select * from t;</solution>", 1),
        ("select distinct a, b from t", 0),
        ("select a from t", 0),
        ("select b, a from t", 0),
        ("drop table t", 0),
        ("select a, b from t; drop table t", 0),
        ("attach database '/tmp/x.db' as x", 0),
        ("select load_extension('x')", 0),
        ("pragma table_info(t)", 0),
        ("with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n", 0),
        ("select zeroblob(1000000000)", 0),
        ("select replace(hex(zeroblob(10000)), '0', '0000000000')", 0),
        ("not a query", 0),
        ("\ud800", 0),
        ("", 0),
    ],
)
def test_sql(query: str, score: float) -> None:
    assert VERIFIERS["sql"](query, {"sql": "select a, b from t", "schema": BUILD}).score == score


def test_sql_order_counts_where_the_gold_orders() -> None:
    gold = {"sql": "select a from t order by a desc", "schema": BUILD}
    assert VERIFIERS["sql"]("select a from t order by a desc", gold).score == 1
    assert VERIFIERS["sql"]("select a from t order by a", gold).score == 0


def test_sql_database_file_is_never_changed(tmp_path: Path) -> None:
    file = tmp_path / "data.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(BUILD)
    connection.close()
    before, gold = file.read_bytes(), {"sql": "select count(*) from t", "db": str(file)}
    VERIFIERS["sql"].check(gold)
    assert VERIFIERS["sql"]("select 3", gold).score == 1
    assert VERIFIERS["sql"]("delete from t", gold).score == 0
    assert file.read_bytes() == before


BAD = [{}, {"sql": "select 1"}, {"sql": "select x", "schema": BUILD}, {"sql": "select 1", "db": "nowhere.db"}, "select 1"]


@pytest.mark.parametrize("gold", BAD)
def test_sql_golds(gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS["sql"].check(gold)


@pytest.mark.parametrize(
    ("kind", "reference", "completion", "score"),
    [
        ("entities", {"gene": ["TP53", "Brca1"]}, '{"gene": ["tp53"]}', 2 / 3),
        ("entities", {"gene": []}, '{"gene": []}', 1),
        ("entities", {"gene": []}, '{"gene": ["x"]}', 0),
        ("list", ["a", "b"], 'The list: ["A", "c"]', 0.5),
        ("list", [], "[]", 1),
        ("relations", [["aspirin", "treats", "head pain", "x", "y"]], '[["aspirin", "treats", "pain", "x", "y"]]', 1),
        ("relations", [["a", "r", "b"]], '[["a", "r", "b"], ["a", "r", "b"]]', 2 / 3),
        (
            "label",
            {"verdict": "SUPPORT", "evidence": ["s1", "s2"]},
            '{"verdict": "support", "evidence": ["s1"]}',
            (1 + 2 / 3) / 2,
        ),
        ("label", {"verdict": "NEI", "evidence": []}, '{"verdict": "NEI", "evidence": []}', 1),
        ("list", ["a"], "no json", 0),
    ],
)
def test_sciriff(kind: str, reference: Any, completion: str, score: float) -> None:
    gold = {"kind": kind, "reference": reference}
    VERIFIERS["sciriff"].check(gold)
    assert VERIFIERS["sciriff"](completion, gold).score == pytest.approx(score)


@pytest.mark.parametrize("gold", ["{", {}, {"kind": "list", "reference": {}}, {"kind": "poem", "reference": []}])
def test_sciriff_golds(gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS["sciriff"].check(gold)
