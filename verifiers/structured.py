"""Verifiers of answers that are data: json_schema, tool_call, zebra_logic."""

import ast
import json
import re
from collections import Counter
from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, as_text, parse_json, pass_or_fail, shorten
from tulu.verifiers.json_text import BadJson, strict_json, unfenced, values_in
from tulu.verifiers.text import after_thinking, final_answer

_TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_LONGEST_CALLS = 20_000
"""Characters of calls in Python's syntax that are read."""


# json_schema


@lru_cache(maxsize=512)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    parsed = parse_json(schema, "ground_truth must be a JSON schema, as an object or as JSON")
    if not isinstance(parsed, dict | bool):
        raise GoldError("ground_truth must be a JSON schema")
    try:
        Draft202012Validator.check_schema(parsed)
    except SchemaError as fault:
        raise GoldError(f"ground_truth is no JSON schema: {fault.message}") from fault
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(parsed))
    for reference in _references(parsed):
        if not reference.startswith("#"):
            # Nothing that a reward depends on may be fetched while training.
            raise GoldError(f"$ref {reference!r} leaves the schema; write the definition into $defs")
        try:
            target = resolver.lookup(reference).contents
        # A pointer into a text or a number fails as an index of it does.
        except (Unresolvable, ValueError, TypeError):
            target = None
        if not isinstance(target, dict | bool):
            raise GoldError(f"$ref {reference!r} points to nothing in the schema")
    validator = Draft202012Validator(parsed)
    try:
        # A schema that refers to itself before it looks at any value never ends.
        next(validator.iter_errors({}), None)
    except RecursionError as fault:
        raise GoldError("ground_truth is a schema that refers to itself without end") from fault
    return validator


def _references(schema: Any) -> list[str]:
    """Every `$ref` that stands anywhere in a schema."""
    if isinstance(schema, dict):
        here = [schema["$ref"]] if isinstance(schema.get("$ref"), str) else []
        return here + [text for value in schema.values() for text in _references(value)]
    return [text for value in schema for text in _references(value)] if isinstance(schema, list) else []


def check_schema(gold: Any) -> None:
    """GoldError unless the ground truth is a JSON schema (2020-12) that refers to nothing outside itself."""
    _validator(as_text(gold))


def json_schema(case: Case) -> Verdict:
    """1 where the answer, fenced or not, is strict JSON that the schema accepts."""
    validator = _validator(as_text(case.gold))
    try:
        value = strict_json(unfenced(final_answer(case.completion)))
    except BadJson as fault:
        return Verdict(0.0, detail=shorten(f"no JSON: {fault}", 200))
    broken = next(validator.iter_errors(value), None)
    return Verdict(1.0) if broken is None else Verdict(0.0, detail=shorten(broken.message, 200))


# tool_call


def _parse_call(entry: Any) -> tuple[str, str]:
    """The name of a call, and its arguments in one spelling; ValueError where it is no call."""
    if isinstance(entry, dict) and isinstance(entry.get("function"), dict):
        entry = entry["function"]
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError("a call has a name")
    values = entry.get("arguments", entry.get("parameters", {}))
    values = json.loads(values) if isinstance(values, str) else values
    if not isinstance(values, dict):
        raise ValueError("arguments must be an object")
    return entry["name"], json.dumps(_canonical(values), sort_keys=True)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    # 1 and 1.0 are one number in JSON; true is not a number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _python_calls(text: str) -> list[dict[str, Any]]:
    """Calls in Python's syntax with literal keyword arguments: f(a=1), or a list of such; ValueError for anything else."""
    if len(text) > _LONGEST_CALLS:
        raise ValueError("too long")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError) as fault:
        raise ValueError(str(fault)) from fault
    calls = []
    for node in tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]:
        if not isinstance(node, ast.Call) or node.args or any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("a call takes keyword arguments")
        values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        calls.append({"name": ast.unparse(node.func), "arguments": values})
    return calls


def calls_in(text: str) -> list[tuple[str, str]]:
    """The calls of a text: in `<tool_call>` blocks, else as one JSON value, else in Python; ValueError where there are none."""
    blocks = _TOOL_CALL.findall(text)
    if blocks:
        return [_parse_call(strict_json(block.strip())) for block in blocks]
    inner = unfenced(text)
    try:
        value = strict_json(inner)
    except BadJson:
        return [_parse_call(entry) for entry in _python_calls(inner)]
    return [_parse_call(entry) for entry in (value if isinstance(value, list) else [value])]


def gold_calls(gold: Any) -> list[tuple[str, str]]:
    """The calls of a ground truth, a list of {name, arguments}; an empty one asks for no call. GoldError for anything else."""
    entries = parse_json(gold, "ground_truth must be a list of calls, as an object or as JSON")
    try:
        return [_parse_call(entry) for entry in (entries if isinstance(entries, list) else [entries])]
    except (ValueError, RecursionError) as fault:
        raise GoldError(f"ground_truth must be calls {{name, arguments}}: {fault}") from fault


def tool_call(case: Case) -> Verdict:
    """1 where the answer makes exactly the calls of the ground truth, in any order."""
    expected, text = gold_calls(case.gold), after_thinking(case.completion)
    try:
        calls = calls_in(text)
    except (ValueError, RecursionError, TypeError) as fault:
        return pass_or_fail(not expected and "<tool_call>" not in text, shorten(f"no call: {fault}", 200))
    return pass_or_fail(Counter(calls) == Counter(expected), shorten(f"calls {[name for name, _ in calls]}", 200))


# zebra_logic


Cells = dict[tuple[str, str], str]
"""The value of each (house, attribute) of a grid, in lower case."""


def _gold_cells(gold: Any) -> Cells:
    """The cells of {house: {attribute: value}}, or of ZeroEval's header and rows; GoldError for anything else."""
    houses = parse_json(gold, "ground_truth must be a solution, as an object or as JSON")
    houses = houses.get("solution", houses) if isinstance(houses, dict) else houses
    if isinstance(houses, dict) and "header" in houses and "rows" in houses:
        header = houses["header"]
        houses = {f"House {row[0]}": dict(zip(header[1:], row[1:], strict=True)) for row in houses["rows"]}
    if not isinstance(houses, dict) or not houses or not all(isinstance(values, dict) and values for values in houses.values()):
        raise GoldError("ground_truth must be {house: {attribute: value}}, or header and rows")
    return _cells(houses)


def _cells(houses: dict[Any, Any]) -> Cells:
    return {
        (_normalise(house), _normalise(attribute)): _normalise(value)
        for house, values in houses.items()
        if isinstance(values, dict)
        for attribute, value in values.items()
    }


def _normalise(text: Any) -> str:
    return " ".join(str(text[0] if isinstance(text, list) and len(text) == 1 else text).lower().split())


def check_houses(gold: Any) -> None:
    """GoldError unless the ground truth is a solved grid."""
    try:
        _gold_cells(gold)
    except (TypeError, LookupError, ValueError) as fault:
        raise GoldError(f"ground_truth is no solved grid: {fault}") from fault


def zebra_logic(case: Case) -> Verdict:
    """1 where every cell of the last {"solution": ...} is right; the detail gives how many are (ZeroEval reports both)."""
    expected = _gold_cells(case.gold)
    solutions = [
        value["solution"]
        for value in values_in(after_thinking(case.completion))
        if isinstance(value, dict) and "solution" in value
    ]
    solution = solutions[-1] if solutions else None
    if not isinstance(solution, dict):
        return Verdict(0.0, detail="no solution")
    answer = _cells(solution)
    correct = sum(answer.get(cell) == value for cell, value in expected.items())
    return pass_or_fail(correct == len(expected), f"{correct}/{len(expected)} cells")


# A regular expression of the schema may backtrack without end, so a completion that costs too much scores 0.
JSON_SCHEMA = Verifier(check=check_schema, strict=json_schema, needs=("jsonschema",), cpu_seconds=2.0)
TOOL_CALL = Verifier(check=gold_calls, strict=tool_call)
ZEBRA_LOGIC = Verifier(check=check_houses, strict=zebra_logic)
