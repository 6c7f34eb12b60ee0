"""The clock of deadlines stands still while its process does, and goes on in a child."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from tulu import deadlines
from tulu.deadlines import LOOK_SECONDS, STILL_SECONDS, RunningClock


class Hands:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    made = Hands()
    monkeypatch.setattr("tulu.deadlines.time.monotonic", made)
    monkeypatch.setattr("tulu.deadlines.threading.Thread.start", lambda _self: None)
    return made


def test_seconds_without_a_look_do_not_count(hands: Hands) -> None:
    clock = RunningClock()
    hands.at = 1_000.0
    began = clock.now()
    for _ in range(4):
        hands.at += STILL_SECONDS
        clock.now()
    assert clock.now() - began == 4 * STILL_SECONDS, "a process that is only busy"
    hands.at += 3_600.0
    assert clock.now() - began == 4 * STILL_SECONDS + LOOK_SECONDS, "one that stood still for an hour"
    hands.at += 2.0
    assert clock.now() - began == 4 * STILL_SECONDS + LOOK_SECONDS + 2.0


def in_child(answer: Callable[[], float]) -> float:
    """What a forked child finds."""
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.write(write, f"{answer():.3f}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = pipe.read()
    os.waitpid(pid, 0)
    return float(found)


def test_a_stopped_process_has_not_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "STILL_SECONDS", 1.0)
    monkeypatch.setattr(deadlines, "LOOK_SECONDS", 0.1)
    read, write = os.pipe()
    if not (pid := os.fork()):
        began, by_the_wall = deadlines.now(), time.monotonic()
        os.write(write, b" ")
        while time.monotonic() - by_the_wall < 2.5:
            time.sleep(0.02)
        os.write(write, f"{deadlines.now() - began:.3f}".encode())
        os._exit(0)
    assert os.read(read, 1) == b" "
    time.sleep(0.3)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2.0)
    os.kill(pid, signal.SIGCONT)
    os.waitpid(pid, 0)
    assert 0.3 < float(os.read(read, 99)) < 1.4


def test_a_child_goes_on_where_its_parent_was() -> None:
    """With a thread of its own, though the parent's lock may be held as it is forked."""
    began = deadlines.now()
    with deadlines._clock._lock:
        assert 0.0 <= in_child(lambda: deadlines.now() - began) < STILL_SECONDS
        assert in_child(slept) == pytest.approx(0.0, abs=0.02)


def slept() -> float:
    """How far the clock of this process is off after 0.3 s or more, in which it did not stand still."""
    began, by_the_wall = deadlines.now(), time.monotonic()
    time.sleep(0.3)
    return (deadlines.now() - began) - (time.monotonic() - by_the_wall)
