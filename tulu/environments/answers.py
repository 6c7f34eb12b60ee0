"""What a class of the user's gives back, as plain values: texts, a reward, and what it raised in words."""

import json
import reprlib
from typing import Any

from tulu import user_code
from tulu.verifiers.contract import LARGEST_SCORE, as_score

LONGEST_TEXT = 64 << 20
"""Characters of a text that are sent to the process that trains; no episode has room for more."""


class Stopped(Exception):
    """A tool tried to end the program; the cause says how."""


def as_text(value: Any) -> str:
    """A tool's result as the policy reads it: text as it is, anything else as JSON where it is JSON."""
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            value = str(value)
    # The process that it is sent to knows no types of the user's, not even one of text.
    return str.__str__(value)[:LONGEST_TEXT]


def as_reward(value: Any) -> float | None:
    """What an environment says of an episode as a number; None where it has no score. Raises ValueError for what is none."""
    if value is None:
        return None
    if (number := as_score(value)) is None:
        cure = f"return a finite number of at most {LARGEST_SCORE:g}, or None for an episode without score"
        raise ValueError(f"get_reward returned {reprlib.repr(value)}; {cure}")
    return number


def told(fault: BaseException) -> str:
    """What a class or a tool of the user's raised, in words."""
    return user_code.told(fault.__cause__ if isinstance(fault, Stopped) and fault.__cause__ is not None else fault)
