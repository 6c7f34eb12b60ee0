"""Progress: lines in a log where there is no terminal, a bar where there is one."""

import io
import logging
import time
from collections.abc import Iterator

import pytest

from tulu import progress
from tulu.progress import Progress, track


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that reach the log; time goes on by hand."""
    written: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record.getMessage())

    log, handler = logging.getLogger("tulu"), Handler()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(handler)
    log.setLevel(level)


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_stage_writes_its_first_and_its_last_line_and_one_now_and_then(lines: list[str], clock: Clock) -> None:
    with Progress("sft", 40) as shown:
        for step in range(1, 41):
            clock.now += 1.0
            shown.update(step, {"loss": 1.25, "other": 3.0, "kl": 0.5}, 1234.5)
    left = {1: "  ETA 0:00:39", 17: "  ETA 0:00:23", 33: "  ETA 0:00:07", 40: ""}
    assert lines == [f"sft {step}/40  loss 1.25  kl 0.5  1,234 tok/s{text}" for step, text in left.items()]


def test_a_line_says_the_learning_rate_what_the_last_look_found_and_how_long_it_will_take(lines: list[str], clock: Clock) -> None:
    looked = {"eval/loss": 2.0, "eval/sums/accuracy": 0.25, "eval/seconds": 9.0}
    with Progress("sft", 3001, 1) as shown:
        clock.now += 100.0
        shown.update(2, {"loss": 1.0, "learning_rate": 1.5e-5, **looked}, 10.0, 0.4)
        clock.now += 100.0
        shown.update(3, {"loss": 1.0, "learning_rate": 1e-6}, 10.0)
    assert lines == [
        "sft 2/3001  loss 1  eval/sums/accuracy 0.25  eval/loss 2  lr 1.50e-05  10 tok/s  40% MFU  ETA 83:18:20",
        "sft 3/3001  loss 1  eval/sums/accuracy 0.25  eval/loss 2  lr 1.00e-06  10 tok/s  ETA 83:16:40",
    ]


def test_shares_that_are_cut_off_or_masked_stand_there_where_there_are_any(lines: list[str], clock: Clock) -> None:
    with Progress("rlvr", 2) as shown:
        shown.update(1, {"reward": 0.5, "masked": 0.0, "truncated": 0.0})
        clock.now += 60
        shown.update(2, {"reward": 0.5, "masked": 0.125, "truncated": 0.25})
    assert lines == ["rlvr 1/2  reward 0.5  ETA 0:00:00", "rlvr 2/2  reward 0.5  truncated 0.25  masked 0.125"]


def test_a_speed_that_falls_and_stays_low_is_told_once(lines: list[str], clock: Clock) -> None:
    def told() -> list[str]:
        return [line for line in lines if "over the last" in line]

    with Progress("sft", 1000) as shown:
        for step in range(1, 61):
            shown.update(step, {}, 1000.0)
        for step in range(61, 73):
            shown.update(step, {}, 600.0)
        assert told() == [], "12 of 25 steps are slower, the median is not"
        shown.update(73, {}, 600.0)
        fallen = (
            "sft: 600 tokens/s over the last 25 steps, after 1,000: is memory full, or the machine hot or shared? (nvidia-smi)"
        )
        assert told() == [fallen]
        for step in range(74, 200):
            shown.update(step, {}, 300.0)
        assert len(told()) == 1


def test_a_short_run_is_told_too(lines: list[str], clock: Clock) -> None:
    """Of 16 steps, the median of five says how fast it is."""
    with Progress("rlvr", 16) as shown:
        for step in range(1, 17):
            shown.update(step, {}, 1000.0 if step <= 8 else 600.0)
    assert len([line for line in lines if "600 tokens/s over the last 5 steps, after 1,000" in line]) == 1


def test_steps_that_differ_are_no_fall(lines: list[str], clock: Clock) -> None:
    with Progress("sft", 1000) as shown:
        for step in range(1, 200):
            shown.update(step, {}, 700.0 if step % 3 else 1000.0)
    assert [line for line in lines if "over the last" in line] == []


def test_brief_work_writes_nothing_before_it_takes_long(lines: list[str], clock: Clock) -> None:
    with Progress("verify", 40, brief=True) as shown:
        for step in range(1, 41):
            clock.now += 1.0
            shown.update(step)
    assert lines == ["verify 16/40", "verify 32/40"]


def test_a_process_that_leaves_the_bar_to_another_is_silent(lines: list[str]) -> None:
    with Progress("sft", 1, shown=False) as shown:
        shown.update(1, {"loss": 1.0})
    assert lines == []


@pytest.mark.parametrize(("sized", "text"), [(True, "rows 2/4"), (False, "rows 2")])
def test_track_yields_every_item_and_counts_them(lines: list[str], clock: Clock, sized: bool, text: str) -> None:
    seen = []
    items = [0, 1, 2, 3]
    for item in track(items if sized else iter(items), "rows"):
        seen.append(item)
        clock.now += 8.0
    assert seen == items
    assert lines == [text, text.replace("2", "4", 1)]


def test_track_ends_with_its_reader(lines: list[str]) -> None:
    for item in track(range(10), "rows"):
        if item == 3:
            break
    assert lines == []


def test_a_terminal_shows_a_bar_and_no_lines(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("sft", 4, 1) as shown:
        shown.update(4, {"loss": 0.5})
    assert "sft" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()
    assert "loss 0.5" in terminal.getvalue()
    assert lines == []


def test_a_brief_bar_appears_only_where_work_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "PATIENCE", 100.0)
    assert list(track(range(5), "rows")) == [0, 1, 2, 3, 4]
    assert terminal.getvalue() == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    for _ in track(range(5), "rows"):
        time.sleep(0.001)
    assert "rows" in terminal.getvalue()


def test_a_step_that_is_far_slower_than_usual_is_told_now_and_then(lines: list[str], clock: Clock) -> None:
    def slow() -> list[str]:
        return [line for line in lines if "are usual" in line]

    with Progress("sft", 1000) as shown:
        for step in range(1, 10):
            shown.update(step, {}, 230.0 if step == 5 else 15_000.0)
        assert slow() == [], "nobody knows yet what is usual"
        shown.update(10, {}, 15_000.0)
        shown.update(11, {}, 3_001.0)
        assert slow() == [], "not quite five times"
        shown.update(12, {}, 230.0)
        told = "sft: 230 tokens/s in step 12, where 15,000 are usual: does something else use this machine? (uptime, nvidia-smi)"
        assert slow() == [told]
        clock.now += 30
        shown.update(13, {}, 230.0)
        assert len(slow()) == 1
        clock.now += 31
        shown.update(14, {}, 230.0)
        assert len(slow()) == 2
