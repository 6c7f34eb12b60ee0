"""`--gpus N`: what the ranks are told, what is heard of them, and that none survives its launcher or another's failure.

Most ranks here are small commands behind the boundary of the command line, which import no torch.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tulu.commands import launch as launching

ROOT = Path(__file__).resolve().parents[2]
RANK = """
import json, os, signal, sys, time, typer
from pathlib import Path
from tulu.commands.boundary import Boundary
from tulu.errors import CheckpointError, DataError
app = typer.Typer(cls=Boundary, pretty_exceptions_enable=False)
rank = int(os.environ["RANK"])

@app.callback()
def begin() -> None:
    pass

@app.command()
def work() -> None:
    Path(f"rank-{rank}").write_text(json.dumps(dict(os.environ)))
{body}

app(["work"])
"""
LAUNCHER = """
import sys, typer
from tulu.commands import launch
from tulu.commands.boundary import Boundary
launch.HOLD, launch.TO_FOLLOW, launch.TO_CLOSE = 1.0, 2.5, 1.0
app = typer.Typer(cls=Boundary, pretty_exceptions_enable=False)

@app.callback()
def begin() -> None:
    pass

@app.command()
def start() -> None:
    launch.launch({count}, [sys.executable, "rank.py"])

app(["start"])
"""
LIMIT = 150.0
"""Seconds that a busy machine may take for what ends by itself; what hangs would go on for ten minutes."""
TOGETHER = "while len(list(Path().glob('rank-?'))) < WORLD: time.sleep(0.05)"
"""The ranks go on when the last of them is there."""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """start(count, body): a launcher of ranks that run the lines of `body`, in the folder of the test."""

    def begin(count: int, *body: str) -> "subprocess.Popen[str]":
        lines = "\n".join(f"    {line}" for line in body)
        (tmp_path / "rank.py").write_text(RANK.replace("{body}", lines))
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")}
        environment = {**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-c", LAUNCHER.replace("{count}", str(count))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes)  # type: ignore[call-overload]

    return begin


def ended(process: "subprocess.Popen[str]", within: float = LIMIT) -> tuple[int, str, str]:
    """(exit code, stdout, stderr)."""
    out, err = process.communicate(timeout=within)
    return process.returncode, out, err


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def test_ranks_know_each_other_and_share_the_cores(start: Start, tmp_path: Path) -> None:
    code, out, err = ended(start(3, "print('out of', rank)", "print('word of', rank, file=sys.stderr)"))
    assert (code, out) == (0, "out of 0\n"), err
    told = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in range(3)]
    assert [(each["RANK"], each["LOCAL_RANK"]) for each in told] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"], each["MASTER_ADDR"]) for each in told} == {("3", "3", "127.0.0.1")}
    assert len({each["MASTER_PORT"] for each in told}) == 1
    assert {each["OMP_NUM_THREADS"] for each in told} == {str(max(1, len(os.sched_getaffinity(0)) // 3))}


def test_what_other_ranks_write_is_passed_on_with_their_number(start: Start) -> None:
    said = ("print('alike', file=sys.stderr, flush=True)", "print('mine', rank, file=sys.stderr, flush=True)", "time.sleep(2.5)")
    code, _, err = ended(start(3, TOGETHER.replace("WORLD", "3"), *said))
    assert code == 0
    lines = err.splitlines()
    # On a busy machine another rank may be the first to write.
    by_itself, passed_on = ([line for line in lines if line.startswith("[rank") == other] for other in (False, True))
    assert by_itself[:2] == ["alike", "mine 0"], "rank 0 writes by itself"
    assert {line for line in passed_on if "mine" in line} == {"[rank 1] mine 1", "[rank 2] mine 2"}
    assert [line.partition("] ")[2] for line in passed_on].count("alike") == 1, "once for both"


def test_ranks_go_on_when_nobody_reads_what_they_say(start: Start, tmp_path: Path) -> None:
    said = "print('mine', rank, file=sys.stderr, flush=True) if rank else None"
    process = start(2, said, "time.sleep(3)", "Path('end').touch()")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=LIMIT) == 0
    assert (tmp_path / "end").exists()


FAILURES = {
    "a bug": ("raise ZeroDivisionError('no such thing')", 1, "rank 2 of 3 failed: ZeroDivisionError: no such thing"),
    "an error of this project": ("raise DataError('rows.jsonl:3: broken')", 2, "rank 2 of 3: rows.jsonl:3: broken"),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", 1, "rank 2 of 3 was killed (SIGKILL), as the kernel does where memory"),
    "crashed": ("os.kill(os.getpid(), signal.SIGSEGV)", 1, "rank 2 of 3 died of SIGSEGV"),
    "left": ("os._exit(7)", 7, "rank 2 of 3 ended with exit code 7"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_a_rank_that_fails_ends_the_others_with_one_message(kind: str, start: Start) -> None:
    """The others would go on for ten minutes; one of them notices the loss by itself, as torch does."""
    assert launching.TO_FOLLOW + launching.TO_CLOSE < 25, "the launcher of this test is less patient"
    failure, expected_code, message = FAILURES[kind]
    noticed = "raise RuntimeError('gloo: Connection closed by peer')"
    body = (
        "print('its last words', file=sys.stderr, flush=True)",
        "if rank == 2:",
        f"    {TOGETHER.replace('WORLD', '3')}",
        f"    {failure}",
        "while not list(Path().glob('lost')): time.sleep(0.2) if rank == 0 else time.sleep(1.0) or Path('lost').touch()",
        f"if rank == 1: {noticed}",
        "time.sleep(600)",
    )
    began = time.monotonic()
    code, _, err = ended(start(3, *body))
    assert time.monotonic() - began < LIMIT
    assert code == expected_code
    # A busy machine gives the other ranks the time to be heard too.
    first, *rest = [line for line in err.splitlines() if not re.fullmatch(r"(\[rank \d\] )?its last words", line)]
    assert first.startswith(message)
    assert "Connection closed" not in err
    assert not [line for line in rest if "of 3" in line], err
    if kind == "a bug":
        assert any("raise ZeroDivisionError" in line for line in rest)
    if kind in ("killed", "crashed", "left"):
        assert "  its last words" in err.splitlines(), "the tail of its stderr"
        assert "Run the same command again" in err


def test_a_mistake_that_all_ranks_meet_is_told_once(start: Start) -> None:
    code, _, err = ended(start(3, "raise DataError('rows.jsonl:3: broken; mend it')"))
    assert (code, err.strip()) == (2, "rows.jsonl:3: broken; mend it")


def test_ranks_that_hang_are_killed_with_what_they_started(start: Start, tmp_path: Path) -> None:
    """Rank 0 ignores SIGTERM and has a child of its own; rank 1 fails."""
    body = (
        "if rank == 0:",
        "    import subprocess",
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "    Path('child').write_text(str(subprocess.Popen(['sleep', '600']).pid))",
        "    time.sleep(600)",
        "while not Path('child').exists() or not Path('child').read_text(): time.sleep(0.05)",
        "raise ValueError('lost')",
    )
    began = time.monotonic()
    code, _, err = ended(start(2, *body))
    assert time.monotonic() - began < LIMIT
    assert code == 1
    assert "rank 1 of 2 failed: ValueError: lost" in err
    child = int((tmp_path / "child").read_text())
    wait_for(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_every_rank_once_and_they_may_save(start: Start, tmp_path: Path, number: int) -> None:
    body = (
        "stopped = []",
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, lambda *_: stopped.append(1))",
        "Path(f'ready-{rank}').touch()",
        "while not stopped: time.sleep(0.05)",
        "time.sleep(1)",
        "Path(f'saved-{rank}').write_text(str(len(stopped)))",
        "raise KeyboardInterrupt",
    )
    process = start(2, *body)
    wait_for(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in range(2)))
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 130
    assert err.strip() == "interrupted; run the same command again: what can be resumed is"
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in range(2)] == ["1", "1"]


def test_the_third_signal_kills(start: Start, tmp_path: Path) -> None:
    body = (
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)",
        "Path(f'ready-{rank}').touch()",
        "time.sleep(600)",
    )
    process = start(2, *body)
    wait_for(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in range(2)))
    for sent in range(1, 7):
        process.send_signal(signal.SIGINT)
        # Of two that a busy process has not taken yet it sees one, so that it may have to be told more often.
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.3 if sent < 3 else 20.0)
            break
    assert sent >= 3
    assert ended(process)[0] == 130


def test_no_rank_survives_its_launcher(start: Start, tmp_path: Path) -> None:
    process = start(2, "Path(f'pid-{rank}').write_text(str(os.getpid()))", "time.sleep(600)")
    wait_for(lambda: all((tmp_path / f"pid-{rank}").exists() and (tmp_path / f"pid-{rank}").read_text() for rank in range(2)))
    ranks = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(2)]
    process.kill()
    wait_for(lambda: not any(psutil.pid_exists(rank) for rank in ranks))


def test_the_port_stays_reserved() -> None:
    import socket

    with launching.reserved_port() as port, socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.socket() as store:
            store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            store.bind(("", port))
            store.listen()
