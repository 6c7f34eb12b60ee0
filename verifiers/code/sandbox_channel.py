"""Messages from and to the parent, and the clocks of a test; runs inside the sandbox."""

from __future__ import annotations

import _signal as signal
import marshal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

    from tulu.verifiers.code.sandbox_values import as_json

LONGEST_LINE = 24 << 20
"""Bytes of a message; the parent refuses longer ones."""


class TimeLimit(BaseException):
    """The time for one test is over."""


class Channel:
    """Messages from the parent by marshal; messages to the parent as lines of JSON, which can be nothing but data."""

    def __init__(self, source: int, target: int) -> None:
        self.source = os.fdopen(source, "rb", buffering=1 << 16)
        self.target = target

    def receive(self) -> Any:
        header = self.source.read(4)
        if len(header) < 4:
            os._exit(0)
        return marshal.loads(self.source.read(int.from_bytes(header, "little")))

    def send(self, message: Any) -> None:
        data = as_json(message).encode() + b"\n"
        if len(data) > LONGEST_LINE:
            data = b'{"error": ["too large a value", ""]}\n'
        while data:
            data = data[os.write(self.target, data) :]


def on_alarm(number: int, _frame: FrameType | None) -> NoReturn:
    raise TimeLimit("cpu" if number == signal.SIGPROF else "wall")


def arm(cpu: float, wall: float) -> None:
    """Starts the clocks of one test, or stops them at 0; they strike again and again, should a program catch the exception."""
    signal.setitimer(signal.ITIMER_REAL, wall, 0.2 if wall else 0)
    signal.setitimer(signal.ITIMER_PROF, cpu, 0.2 if cpu else 0)


def run_timed(command: dict[str, Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function, or the error that ended it."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.signal(signal.SIGPROF, on_alarm)
    try:
        arm(command["cpu"], command["wall"])
        try:
            return function(*arguments)
        finally:
            arm(0, 0)
    # A program may raise anything, also SystemExit and exceptions that cannot be printed.
    except BaseException as fault:  # noqa: BLE001
        arm(0, 0)
        return {"error": [type(fault).__name__, message_of(fault)]}


def message_of(fault: BaseException) -> str:
    """The message of an exception; its __str__ may be the program's code, and fail."""
    try:
        return str(fault)[:300]
    except BaseException:  # noqa: BLE001
        return ""
