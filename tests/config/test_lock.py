"""One command at a time in a folder: of two that start together one works, the other is told who does, and death lets go."""

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from tulu.config import lock
from tulu.config.lock import Owner, holder, only_user
from tulu.errors import InUseError

HOLD = """
import sys
from pathlib import Path
from tulu.config.lock import only_user
from tulu.errors import InUseError
try:
    with only_user(Path(sys.argv[1])):
        print("mine", flush=True)
        sys.stdin.readline()
except InUseError as error:
    print(error, flush=True)
    raise SystemExit(error.exit_code)
"""
FORKED = """
import os, sys, time
from pathlib import Path
from tulu.config.lock import only_user
with only_user(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
"""


def hold(folder: Path, script: str = HOLD, **environment: str) -> "Popen[str]":
    """A process that asks for the folder, says what came of it, and keeps the folder until it is told a line."""
    command = [sys.executable, "-c", script, str(folder)]
    return Popen(command, stdin=PIPE, stdout=PIPE, text=True, env={**os.environ, **environment})


def said(process: "Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go(process: "Popen[str]") -> None:
    process.communicate("\n", timeout=120)


@pytest.mark.parametrize("attempt", range(10))
def test_of_two_that_start_at_once_one_works_and_the_other_is_told(attempt: int, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "tiny" / "sft"
    both = [hold(folder), hold(folder)]
    lines = [said(process) for process in both]
    assert sorted(line == "mine" for line in lines) == [False, True], lines
    owner, told = (both[place] for place in (lines.index("mine"), 1 - lines.index("mine")))
    assert told.wait(timeout=120) == 2
    told.communicate()
    assert f"sft: in use by pid {owner.pid} on {os.uname().nodename} since 20" in lines[1 - lines.index("mine")]
    let_go(owner)
    assert owner.returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing is left of the lock"


def test_a_killed_owner_holds_nothing_even_while_its_child_lives(tmp_path: Path) -> None:
    owner = hold(tmp_path / "sft", FORKED)
    child = int(said(owner))
    try:
        with pytest.raises(InUseError, match=f"pid {owner.pid} "), only_user(tmp_path / "sft"):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        os.kill(child, 0)
        assert (tmp_path / ".sft.lock").exists(), "it had no time to clear up"
        with only_user(tmp_path / "sft"):
            third = hold(tmp_path / "sft")
            assert f"pid {os.getpid()} " in said(third), "the name of the dead one is gone"
            third.communicate()
    finally:
        os.kill(child, signal.SIGKILL)
        owner.communicate()


CONTEST = """
import os, sys
from pathlib import Path
from tulu.config.lock import only_user
from tulu.errors import InUseError
place, won = Path(sys.argv[1]), 0
while won < 25:
    try:
        with only_user(place / "made" / "sft"):
            os.close(os.open(place / "one at a time", os.O_CREAT | os.O_EXCL))
            os.unlink(place / "one at a time")
            won += 1
    except InUseError:
        pass
print("done")
"""


def test_the_file_is_removed_and_made_again_and_never_two_hold_it(tmp_path: Path) -> None:
    """Five processes take and leave the same folder, of which the parent comes and goes too."""
    racers = [hold(tmp_path, CONTEST) for _ in range(5)]
    assert [racer.communicate(timeout=300)[0] for racer in racers] == ["done\n"] * 5
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_file_that_was_removed_while_it_was_opened_is_not_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fcntl.lockf
    removed: list[Path] = []

    def slow(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(tmp_path / ".sft.lock")
            removed[0].unlink()
        plain(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", slow)
    with only_user(tmp_path / "sft"):
        assert (tmp_path / ".sft.lock").exists()
        other = hold(tmp_path / "sft")
        assert "in use by pid" in said(other)
        other.communicate()


def test_a_process_may_ask_again_for_what_it_holds(tmp_path: Path) -> None:
    with only_user(tmp_path / "sft", tmp_path / "dpo"):
        with only_user(tmp_path / "sft"):
            pass
        other = hold(tmp_path / "sft")
        assert "in use by pid" in said(other), "the inner one gave nothing back"
        other.communicate()
    with only_user(tmp_path / "new" / "sft"):
        pass
    assert not (tmp_path / "new").exists(), "a folder that was made for the lock alone goes with it"
    free = hold(tmp_path / "dpo")
    assert said(free) == "mine"
    let_go(free)


def test_one_refused_folder_gives_the_others_back(tmp_path: Path) -> None:
    owner = hold(tmp_path / "dpo")
    assert said(owner) == "mine"
    with pytest.raises(InUseError, match="dpo: in use"), only_user(tmp_path / "sft", tmp_path / "dpo"):
        pass
    other = hold(tmp_path / "sft")
    assert said(other) == "mine"
    let_go(other)
    let_go(owner)


def test_of_several_ranks_the_main_one_holds_it_and_the_launcher_is_named(tmp_path: Path) -> None:
    main = hold(tmp_path / "sft", RANK="0", WORLD_SIZE="2", TORCHELASTIC_RUN_ID="x")
    assert said(main) == "mine"
    second = hold(tmp_path / "sft", RANK="1", WORLD_SIZE="2", TORCHELASTIC_RUN_ID="x")
    assert said(second) == "mine"
    let_go(second)
    stranger = hold(tmp_path / "sft")
    assert f"pid {os.getpid()} " in said(stranger), "the process that started rank 0"
    stranger.communicate()
    let_go(main)


def test_inside_lies_within_a_folder_and_leaves_its_parent_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with only_user(tmp_path / "out", inside=True):
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        (tmp_path / "out" / "results.json").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_the_name_of_a_dead_owner_is_not_told_while_the_new_one_writes_its_own(tmp_path: Path) -> None:
    ended = Popen(["true"])
    ended.wait()
    file = tmp_path / ".sft.lock"
    file.write_text(json.dumps({"pid": ended.pid, "host": os.uname().nodename, "since": "long ago"}))
    script = HOLD.replace("try:", "from tulu.config import lock\nlock.json.dumps = slowly\ntry:").replace(
        "import sys",
        "import sys, time, json\nplain = json.dumps\ndef slowly(value):\n    time.sleep(0.2)\n    return plain(value)\n",
        1,
    )
    owner = hold(tmp_path / "sft", script)
    deadline = time.monotonic() + 60
    # On a busy machine it may have written it before anybody looks.
    while (text := file.read_text()) and f'"pid": {owner.pid},' not in text and time.monotonic() < deadline:
        time.sleep(0.005)
    with pytest.raises(InUseError, match=f"pid {owner.pid} "), only_user(tmp_path / "sft"):
        pass
    assert said(owner) == "mine"
    let_go(owner)


def test_a_folder_is_one_folder_by_whatever_link(tmp_path: Path) -> None:
    (place := tmp_path / "disk" / "runs" / "name" / "rlvr").mkdir(parents=True)
    (tmp_path / "other" / "name").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "runs")
    (tmp_path / "other" / "name" / "rlvr").symlink_to(place)
    ways = [place, tmp_path / "runs" / "name" / "rlvr", tmp_path / "other" / "name" / "rlvr"]
    with Popen([sys.executable, "-c", HOLD, place], stdin=PIPE, stdout=PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "mine\n"
        for way in ways:
            with pytest.raises(InUseError, match=f"pid {owner.pid} "), only_user(way):
                pass
            assert (found := holder(way)) is not None
            assert found.pid == owner.pid
        owner.communicate("\n")


def test_a_file_system_without_locks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with caplog.at_level(logging.WARNING), only_user(tmp_path / "sft"):
        assert "has no locks (No locks available); start no second command in" in caplog.text


def test_an_owner_elsewhere_is_taken_at_its_word() -> None:
    assert not lock.Owner(2**22 + 1, "another-machine", "then").is_gone
    assert lock.Owner(2**22 + 1, os.uname().nodename, "then").is_gone
    assert not lock.Owner.this().is_gone


def test_nothing_heavy_is_needed() -> None:
    code = "import sys, tulu.config.lock; print([name for name in ('torch', 'pydantic', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_who_holds_a_folder_is_known_without_taking_it(tmp_path: Path) -> None:
    assert holder(tmp_path / "rlvr") is None
    owner = hold(tmp_path / "rlvr")
    assert said(owner) == "mine"
    found = holder(tmp_path / "rlvr")
    assert found is not None
    assert found.pid == owner.pid
    owner.kill()
    owner.wait()
    assert (tmp_path / ".rlvr.lock").exists()
    assert holder(tmp_path / "rlvr") is None, "a name that a killed command left"
    (tmp_path / ".rlvr.lock").write_text("{")
    assert holder(tmp_path / "rlvr") is None
    with only_user(tmp_path / "rlvr"):
        # To open the file would give the lock back.
        assert holder(tmp_path / "rlvr") == Owner.this()
        other = hold(tmp_path / "rlvr")
        assert "in use by" in said(other)
        let_go(other)
