"""json_schema: an answer is right where it is strict JSON that the schema of the ground truth accepts, formats included."""

from functools import lru_cache
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, as_text, parse_json, shorten
from tulu.verifiers.json_formats import format_checker
from tulu.verifiers.json_text import BadJson, strict_json, strict_json_in
from tulu.verifiers.text import after_thinking, final_answer, trim_invisible

_SCALARS: tuple[Any, ...] = (None, 0, "")
"""Values that hold nothing. A schema that takes them all asks for nothing, or holds its demands on an object without a type."""
_WRAPPERS = ("schema", "parameters", "json_schema", "input_schema")
"""Keys under which the definitions of tools and of answers' forms hold the schema."""


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
    validator = Draft202012Validator(parsed, format_checker=format_checker())
    try:
        # A schema that refers to itself before it looks at any value never ends.
        next(validator.iter_errors({}), None)
        asks_nothing = all(next(validator.iter_errors(value), None) is None for value in _SCALARS)
    except RecursionError as fault:
        raise GoldError("ground_truth is a schema that refers to itself without end") from fault
    if asks_nothing:
        wrapper = next((key for key in _WRAPPERS if isinstance(parsed, dict) and isinstance(parsed.get(key), dict)), None)
        cure = f"give what stands under {wrapper!r}" if wrapper else 'say what is wanted, as {"type": "object", ...} does'
        raise GoldError(f"the schema accepts null, 0 and an empty text, so that any answer would do; {cure}")
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


def _parse_answer(completion: str) -> Any:
    """The JSON of an answer: all of it, since its texts may hold tags and fences, else what the tag or the fence holds."""
    text = after_thinking(completion)
    for whole in (trim_invisible(completion).strip(), text.strip()):
        try:
            return strict_json_in(whole) if whole.startswith("```") else strict_json(whole)
        except BadJson:
            continue
    return strict_json_in(final_answer(completion))


def json_schema(case: Case) -> Verdict:
    """1 where the answer, fenced or not, is strict JSON that the schema accepts."""
    validator = _validator(as_text(case.gold))
    try:
        value = _parse_answer(case.completion)
    except BadJson as fault:
        return Verdict(0.0, detail=shorten(f"no JSON: {fault}", 200))
    broken = next(validator.iter_errors(value), None)
    return Verdict(1.0) if broken is None else Verdict(0.0, detail=shorten(broken.message, 200))


# A regular expression of the schema may backtrack without end, so a completion that costs too much scores 0.
JSON_SCHEMA = Verifier(check=check_schema, strict=json_schema, needs=("jsonschema",), cpu_seconds=2.0)
