# ruff: noqa: E501 (many short cases)
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


STRING = {"type": "object", "required": ["s"]}
# A text may hold fences, tags of answers and of thinking, and brackets of every kind.
TEXTS = [
    "a ```b``` c",
    "```\n",
    "```json\n{}\n```",
    "<answer>x</answer>",
    "<think>",
    "</think>",
    "<think>x</think>",
    "[{",
    "\u200b",
    "\\boxed{1}",
    "`",
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_stands_in_a_text_is_a_text(text: str) -> None:
    answer = json.dumps({"s": text})
    for completion in (answer, f"\ufeff{answer}\n", f"```json\n{answer}\n```", f"```\n{answer}\n```"):
        assert VERIFIERS["json_schema"](completion, STRING).score == 1, completion


@pytest.mark.parametrize(
    "gold",
    [
        True, {}, {"required": ["a"]}, {"properties": {"a": {"type": "string"}}}, {"title": "x"}, {"minItems": 3}, {"minProperties": 1}, {"additionalProperties": False},
        {"name": "f", "description": "d", "parameters": {"type": "object"}}, {"name": "r", "schema": {"type": "object"}}, {"type": "json_schema", "json_schema": {}},
        {"anyOf": [{}, {"type": "object"}]}, {"not": {"type": "array"}}, {"type": ["null", "integer", "string", "object"]}, {"$defs": {"a": {"type": "object"}}}, {"items": {"type": "object"}},
    ],
)  # fmt: skip
def test_schemas_that_ask_for_nothing_are_refused(gold: Any) -> None:
    with pytest.raises(GoldError):
        VERIFIERS["json_schema"].check(gold)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("date", ["2024-02-29"], ["2023-02-29", "2024-2-9", "today", "", "2024-02-29T00:00:00Z"]),
        ("time", ["23:59:59Z", "08:30:06.283185+05:30"], ["24:00:00Z", "12:00", "12:00:00", "noon"]),
        (
            "date-time",
            ["2024-02-29T12:00:00Z", "1990-12-31t23:59:60z"],
            ["2024-02-29", "2024-02-29 12:00:00", "x", "2024-02-30T00:00:00Z"],
        ),
        ("duration", ["P3Y6M4DT12H30M5S", "PT30M", "P4W"], ["P", "PT", "3 days", "P1"]),
        ("email", ["ann@example.com", "a.b+c@x.org"], ["ann", "@x.org", "a b@x.org", "ann@", "a..b@x.org"]),
        ("hostname", ["example.com", "a-b.org"], ["-a.org", "a_b", "", "a..b", "a" * 64]),
        ("ipv4", ["127.0.0.1"], ["256.0.0.1", "1.2.3", "x"]),
        ("ipv6", ["::1", "2001:db8::8a2e"], ["1.2.3.4", ":::", "x"]),
        ("uri", ["https://example.com/a?b#c", "mailto:a@b.c", "urn:isbn:1"], ["x", "//a/b", "https://a b", "http:", "\\\\a"]),
        ("uri-reference", ["/a/b", "#c", "https://a.b"], ["a b", "\\\\a", "%zz"]),
        ("uuid", ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08", "2eb8aa08aa9811eab4aa73b441d16380"]),
        ("regex", ["^a+$"], ["(", "[a"]),
        ("json-pointer", ["", "/a/b~1c"], ["a", "/~2"]),
    ],
)
def test_formats_are_checked(name: str, right: list[str], wrong: list[str]) -> None:
    gold = {"type": "object", "required": ["x"], "properties": {"x": {"type": "string", "format": name}}}
    VERIFIERS["json_schema"].check(gold)
    assert [VERIFIERS["json_schema"](json.dumps({"x": text}), gold).score for text in right] == [1] * len(right)
    assert [VERIFIERS["json_schema"](json.dumps({"x": text}), gold).score for text in wrong] == [0] * len(wrong)


BLANKS: list[Any] = [
    None,
    "",
    " ",
    "___",
    "_",
    "-",
    "?",
    "...",
    "\u200b",
    "null",
    "None",
    "N/A",
    "unknown",
    [],
    {},
    ["___"],
    [None],
]


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_cell_is_no_answer_and_no_gold(blank: Any) -> None:
    verifier = VERIFIERS["zebra_logic"]
    grids = [
        {"House 1": {"Name": "Ann"}, "House 2": {"Name": blank}},
        {"header": ["House", "Name"], "rows": [["1", "Ann"], ["2", blank]]},
        {"solution": {"House 1": {"Name": blank}}},
    ]
    for gold in grids:
        with pytest.raises(GoldError):
            verifier.check(gold)
    answer = json.dumps({"solution": {"House 1": {"Name": blank}}})
    assert verifier(answer, {"House 1": {"Name": "Ann"}}).score == 0


RELATIONS = [["BRCA2 gene", "linked to", "ovarian cancer"], ["ibuprofen", "treats", "head pain"], ["yeast", "is a", "fungus"]]
ABSTRACT = "We show that the BRCA2 gene is linked to ovarian cancer, ibuprofen treats head pain, and yeast is a fungus."


def _abstract_windows() -> list[list[list[str]]]:
    """The same window of an abstract as every part of a relation, for every window: 20 words make 210 windows."""
    words = ABSTRACT.split()
    windows = [" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]
    return [[[window] * 3] for window in windows]


def test_one_text_as_every_part_earns_nothing() -> None:
    gold = {"kind": "relations", "reference": RELATIONS}
    letters = [[[letter] * 3 for _ in RELATIONS] for letter in "abcdefghijklmnopqrstuvwxyz .,"]
    words = [[[word, other, word]] for word in "the a of is to in and".split() for other in "the a of is to in and".split()]
    sentence = [[[ABSTRACT, ABSTRACT + "!", ABSTRACT + "?"]], [[ABSTRACT] * 3] * 3]
    for answer in [*_abstract_windows(), *letters, *words, *sentence]:
        assert VERIFIERS["sciriff"](json.dumps(answer), gold).score == 0, answer


@pytest.mark.parametrize("kind", ["entities", "relations", "list", "label"])
def test_the_wrong_shape_scores_0(kind: str) -> None:
    references: dict[str, list[Any]] = {"entities": [{}, {"gene": ["a"]}], "relations": [[], [["a", "r", "b"]]], "list": [[], ["a"]], "label": [{"verdict": "SUPPORT", "evidence": []}]}  # fmt: skip
    shapes: dict[str, list[Any]] = {
        "entities": [[], [[]], "x", 0, True, None, {"gene": "a"}, {"gene": None}, {"gene": {}}, {"gene": [""]}, {"gene": [[]]}, {"gene": [None]}],
        "relations": [{}, "x", 0, True, None, ["a"], [[]], [{}], [None], [["a", None, "b"]], [["", "", ""]], {"a": []}],
        "list": [{}, "x", 0, True, None, [[]], [{}], [None], [""], ["\u200b"], {"a": ["a"]}, [True]],
        "label": [[], "SUPPORT", 0, True, None, {}, {"evidence": []}, {"verdict": None}, {"verdict": ""}, {"verdict": ["SUPPORT"]}, {"verdict": "x", "evidence": []}],
    }  # fmt: skip
    for reference in references[kind]:
        gold = {"kind": kind, "reference": reference}
        VERIFIERS["sciriff"].check(gold)
        assert VERIFIERS["sciriff"](json.dumps(reference), gold).score == 1
        for answer in shapes[kind]:
            assert VERIFIERS["sciriff"](json.dumps(answer), gold).score == 0, (answer, reference)


def test_evidence_counts_only_with_the_right_verdict() -> None:
    gold = {"kind": "label", "reference": {"verdict": "SUPPORT", "evidence": ["s1", "s2"]}}
    for verdict, score in (("SUPPORT", 1), ("CONTRADICT", 0), ("NEI", 0), ("x", 0), ("", 0)):
        assert VERIFIERS["sciriff"](json.dumps({"verdict": verdict, "evidence": ["s1", "s2"]}), gold).score == score
