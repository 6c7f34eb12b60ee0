"""Where a run stands: waits that are told, the file of it, and the command that reads that."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tulu.cli import app
from tulu.rollout.status import Status, is_alive, read_status


def test_a_long_wait_is_told_and_told_again_when_it_has_doubled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tulu")
    with Status(tell_after=60.0) as status:
        with status.waiting("a short one"):
            pass
        status.tell_after = 0.1
        with status.waiting(lambda: "engine 3"):
            deadline = time.monotonic() + 30
            while len(caplog.records) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            [(whom, _, seconds)] = status.waits()
        assert status.waits() == []
    assert whom == "engine 3"
    assert seconds >= 0.4, "told after 0.1 s, 0.2 s and 0.4 s at the earliest"
    assert all(record.message.startswith("waiting for engine 3 since ") for record in caplog.records)


def test_a_clock_that_is_set_back_silences_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tulu")
    with Status(tmp_path / "status.json", tell_after=0.2) as status, status.waiting("engine 3"):
        earlier = time.time() - 7_200
        monkeypatch.setattr("tulu.rollout.status.time.time", lambda: earlier)
        deadline = time.monotonic() + 30
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        [(_, since, seconds)] = status.waits()
        assert since > earlier + 7_000, "by the clock of then"
    assert 0.2 <= seconds < 30
    assert "waiting for engine 3 since " in caplog.text


def test_the_file_says_what_was_said_and_how_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    status = Status(path)
    status.say(state="training", step=3)
    status.say(steps=9, last={"loss": float("nan")})
    status.ask("queue", lambda: {"drawn": 2})

    def fail() -> None:
        with status:
            raise ValueError("no\nmore")

    with pytest.raises(ValueError, match="no"):
        fail()
    found = read_status(path)
    assert {name: found[name] for name in ("state", "step", "steps", "queue", "last", "waits", "pid")} == {
        "state": "stopped: ValueError: no",
        "step": 3,
        "steps": 9,
        "queue": {"drawn": 2},
        "last": {"loss": None},
        "waits": [],
        "pid": os.getpid(),
    }


def test_whose_process_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = socket.gethostname()
    assert is_alive({"host": here, "pid": os.getpid()}) is True
    assert is_alive({"host": here, "pid": gone.pid}) is False
    assert is_alive({"host": "elsewhere", "pid": gone.pid}) is None


def ask(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["rlvr", *arguments])
    return result.exit_code, result.output


def test_the_command_answers_from_another_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "rlvr"
    folder.mkdir(parents=True)
    status = Status(folder / "status.json")
    status.say(state="training", step=3, steps=9, last={"reward": 0.5, "loss": None})
    status.ask("queue", lambda: {"drawn": 2, "sampling": 1})
    status.ask("engines", lambda: [{"name": "engine-0", "status": "ready", "version": 3, "running": 7, "restarts": 0}])
    with status.waiting("the engines to take the new weights"):
        status._write()
    for name in ("tiny", str(tmp_path / "runs" / "tiny"), str(folder)):
        code, told = ask("--status", name, "--runs", str(tmp_path / "runs"))
        assert code == 0, told
        assert f"{folder}: step 3 of 9, training" in told
        assert "prompts: 2 drawn, 1 sampling" in told
        assert "engine engine-0: ready, weights of step 3, 7 requests" in told
        assert "last step: reward 0.5" in told
        assert "waiting for the engines to take the new weights since " in told


def test_of_a_run_that_ended_no_engine_is_told(tmp_path: Path) -> None:
    status = Status(tmp_path / "status.json")
    status.say(state="ended", step=9, steps=9, last={"reward": 0.5})
    status.ask("queue", lambda: {"drawn": 0})
    status.ask("engines", lambda: [{"name": "engine", "status": "stale", "version": -1, "running": 0, "restarts": 0}])
    status._write()
    code, told = ask("--status", str(tmp_path))
    assert code == 0
    assert "step 9 of 9, ended" in told
    assert "last step: reward 0.5" in told
    assert "engine" not in told.replace(str(tmp_path), "")
    assert "prompts:" not in told


def test_the_command_says_that_a_run_died(tmp_path: Path) -> None:
    dead = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tulu.rollout.status import Status\n"
            "s = Status(Path(sys.argv[1])); s.say(state='training', step=3, steps=9); s._write()",
            str(tmp_path / "status.json"),
        ],
        check=True,
    )
    assert dead.returncode == 0
    code, told = ask("--status", str(tmp_path))
    assert code == 0
    assert "gone: pid " in told
    assert "training was its last; run the same command to resume" in told


HOLD = """
import sys
from pathlib import Path
from tulu.config.lock import only_user
with only_user(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("before", ["killed", "ended", "nothing"])
def test_a_run_that_starts_again_is_not_gone(before: str, tmp_path: Path) -> None:
    """A new process holds the folder, and has written nothing while it imports torch and opens the run."""
    folder = tmp_path / "runs" / "tiny" / "rlvr-math"
    folder.mkdir(parents=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    began = time.time() - 60
    written = {"pid": gone.pid, "host": socket.gethostname(), "began": began, "written": began + 9, "waits": [], "step": 3}
    if before != "nothing":
        state = {"killed": "training", "ended": "ended"}[before]
        (folder / "status.json").write_text(json.dumps({**written, "steps": 9, "state": state}))
    holding = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holding.stdout is not None
    assert holding.stdout.readline() == "mine\n"
    for name in ("tiny", str(folder)):
        code, told = ask("--status", name, "--runs", str(tmp_path / "runs"))
        assert code == 0, told
        assert f"{folder}: starting, since " in told
        assert f"pid {holding.pid} on {socket.gethostname()} has said nothing of this stage yet" in told
        assert "gone" not in told
        assert ("before, until " in told) == (before != "nothing")
    if before == "killed":
        # The launcher of the session that wrote it outlives its ranks, and starts nothing.
        late = {**written, "began": time.time() + 5, "state": "training", "steps": 9}
        (folder / "status.json").write_text(json.dumps(late))
        code, told = ask("--status", str(folder))
        assert "gone: pid " in told
    holding.communicate("\n", timeout=120)
    if before == "nothing":
        assert ask("--status", "tiny", "--runs", str(tmp_path / "runs"))[0] == 2


def test_the_file_itself_names_its_run(tmp_path: Path) -> None:
    status = Status(tmp_path / "status.json")
    status.say(state="starting: loading the models")
    status._write()
    code, told = ask("--status", str(tmp_path / "status.json"))
    assert code == 0, told
    assert f"{tmp_path}: starting: loading the models" in told, "and no step is named where none is known"
    (tmp_path / "other.json").write_text((tmp_path / "status.json").read_text())
    assert ask("--status", str(tmp_path / "other.json"))[0] == 2


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no RLVR run has written a status.json"),
        ("[]", "cannot be read"),
        ("{}", "cannot be read"),
        ("{", "cannot be read"),
    ],
)
def test_the_command_refuses_what_is_no_run(content: str | None, expected: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "status.json").write_text(content)
    code, told = ask("--status", str(tmp_path))
    assert (code, expected in told.replace("\n", " ")) == (2, True), told


def test_asking_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"pid": 1, "host": "x", "began": 0, "written": 0, "waits": []}))
    script = "import sys\nfrom tulu.cli import app\ntry:\n    app()\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "rlvr", "--status", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n")
