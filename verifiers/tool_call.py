"""tool_call: an answer is right where it makes exactly the expected calls, in any order and in any of the usual spellings.

The ground truth is a list of {name, arguments}; an empty one asks for an answer without a call. Whatever looks like a call
counts as one, so that a call which cannot be read is never no call.
"""

import json
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.call_forms import Call, Untyped, calls_in, parse_call
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json, pass_or_fail, shorten
from tulu.verifiers.text import after_thinking, has_content, visible_text

_LONGEST = 200_000
"""Characters of an answer that are read."""
_MOST_CALLS = 200
"""Calls of an answer that are compared."""


def gold_calls(gold: Any) -> list[Call]:
    """The calls of a ground truth, a list of {name, arguments}; an empty one asks for no call. GoldError for anything else."""
    entries = parse_json(gold, "ground_truth must be a list of calls, as an object or as JSON")
    try:
        return [parse_call(entry) for entry in (entries if isinstance(entries, list) else [entries])]
    except (ValueError, RecursionError) as fault:
        raise GoldError(f"ground_truth must be calls {{name, arguments}}: {fault}") from fault


def same_value(answer: Any, gold: Any) -> bool:
    """Whether two arguments are equal: 1 is 1.0 and no bool; a value without a type is what its text is, or is JSON of."""
    if isinstance(answer, Untyped):
        return str(answer) == gold if isinstance(gold, str) else same_value(answer.value(), gold)
    if isinstance(answer, dict) and isinstance(gold, dict):
        return answer.keys() == gold.keys() and all(same_value(answer[key], gold[key]) for key in gold)
    if isinstance(answer, list | tuple) and isinstance(gold, list | tuple):
        return len(answer) == len(gold) and all(map(same_value, answer, gold))
    if isinstance(answer, bool) or isinstance(gold, bool):
        return answer is gold
    if isinstance(answer, int | float) and isinstance(gold, int | float):
        return answer == gold
    return type(answer) is type(gold) and bool(answer == gold)


def _same_calls(calls: list[Call], expected: list[Call]) -> bool:
    """Whether two lists hold the same calls, whatever their order."""
    if len(calls) != len(expected) or len(calls) > _MOST_CALLS:
        return False
    missing = list(expected)
    for name, arguments in calls:
        place = next((at for at, call in enumerate(missing) if call[0] == name and same_value(arguments, call[1])), None)
        if place is None:
            return False
        missing.pop(place)
    return True


def strict(case: Case) -> Verdict:
    """1 where the answer makes exactly the calls of the ground truth, in any order."""
    expected, text = gold_calls(case.gold), visible_text(after_thinking(case.completion))
    if not has_content(text):
        return Verdict(0.0, detail="no answer")
    if len(text) > _LONGEST:
        return Verdict(0.0, detail=f"{len(text)} characters")
    try:
        calls = calls_in(text)
    except (ValueError, RecursionError, TypeError, MemoryError) as fault:
        return Verdict(0.0, detail=shorten(f"a call that cannot be read: {fault}", 200))
    names = json.dumps([name for name, _ in calls])
    return pass_or_fail(_same_calls(calls, expected), shorten(f"calls {names}", 200) if calls else "no call")


TOOL_CALL = Verifier(check=gold_calls, strict=strict)
