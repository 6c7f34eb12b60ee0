"""What vLLM died of. Its core is a process of its own, whose errors only point to each other and to a log that nobody sees."""

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from tulu.rollout.fleet_calls import EngineBroken, said

ELSEWHERE = re.compile(r"stack trace|root cause", re.IGNORECASE)
"""Words of an error that is not the cause, and says so."""
LAST_LINE = re.compile(r"(?:.*\] |\s*)((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)): (.+)")
"""The line that ends a traceback, as Python writes it or as vLLM logs it, behind `(EngineCore pid=7) ERROR ... [core.py:15] `."""
TAIL_BYTES = 1 << 18
"""Of a log, the end that is read."""


def broken(error: BaseException) -> EngineBroken:
    """Why vLLM cannot go on, and where its log is."""
    where = f"vLLM's own words: {own_log()}"
    if cause := cause_of(error):
        return EngineBroken(f"vLLM failed ({cause})", where)
    return EngineBroken("", f"vLLM's core ended without a word, as a process does that is killed where memory runs out; {where}")


def cause_of(error: BaseException) -> str:
    """What an error says, or that which it came from, or else what the log says last; "" if all of them point elsewhere."""
    named = next((cause for cause in _chain(error) if not points_elsewhere(cause)), None)
    return last_error(own_words()) if named is None else said(named)


def points_elsewhere(error: BaseException) -> bool:
    """Whether this error is not the cause, and says so."""
    return ELSEWHERE.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, from the last to the first."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def last_error(text: str) -> str:
    """The last error in a log that is the end of a traceback and does not point elsewhere, as `ValueError: no such shape`."""
    for line in reversed(text.splitlines()):
        found = LAST_LINE.fullmatch(line.rstrip())
        if found and not ELSEWHERE.search(found[2]):
            return f"{found[1].rpartition('.')[2]}: {found[2].strip()}"
    return ""


def own_log() -> str:
    """Where this process writes what nobody sees: HOST:FILE of Ray's log."""
    return f"{socket.gethostname()}:{_log_of(1)}"


def own_words() -> str:
    """The end of what this process and its children wrote, to their output and before it to their errors."""
    return "\n".join(_tail(path) for path in dict.fromkeys((_log_of(2), _log_of(1))))


def _log_of(descriptor: int) -> Path:
    return Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))


def _tail(path: Path) -> str:
    """The end of a file; "" where the stream is no file, or a file that is gone."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
