import os
import platform
import subprocess
import time
from pathlib import Path

import pytest

from tests.verifiers.hostile_programs import CHEATS, ISOLATION, PROGRAMS, RESOURCES
from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.code import sandbox
from tulu.verifiers.code.script import run_script
from tulu.verifiers.code.seccomp import seccomp_filter
from tulu.verifiers.code.verifier import CODE

SECONDS = 0.8


@pytest.fixture(autouse=True)
def _sandboxed(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        sandbox.require()
    except RecipeError as fault:
        pytest.skip(str(fault))
    monkeypatch.setenv("TULU_TEST_SECRET", "hunter2")


def test_there_are_enough_of_them() -> None:
    assert len(PROGRAMS) >= 60
    assert min(len(RESOURCES), len(ISOLATION), len(CHEATS)) >= 20


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_hostile_program_gets_what_it_deserves(name: str) -> None:
    if platform.machine() != "x86_64" and "syscall(" in PROGRAMS[name][0]:
        pytest.skip("written for the system calls of x86_64")
    source, tests, score = PROGRAMS[name]
    began = time.monotonic()
    verdict = CODE(f"```python\n{source}\n```", {"tests": tests, "time_limit": SECONDS})
    assert verdict.status == "ok", verdict
    assert verdict.score == score, verdict
    assert time.monotonic() - began < len(tests) * (2.5 * SECONDS + 1.0) + 60.0


def test_nothing_is_left_running() -> None:
    with sandbox.Sandbox("program", sandbox.Limits()) as running:
        command = {"cpu": 5.0, "wall": 5.0, "modules": ()}
        source = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)"
        running.ask({"op": "load", "source": source, **command}, 10.0)
        mine = running.process.pid
        children = subprocess.run(["pgrep", "-s", str(mine)], capture_output=True, text=True, check=False).stdout.split()
    until = time.monotonic() + 60
    while any(Path("/proc", pid).exists() for pid in [*children, str(mine)]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path("/proc", pid).exists() for pid in [*children, str(mine)])


def _below(pid: int) -> set[int]:
    """All processes that descend from one."""
    found, new = set[int](), {pid}
    while new:
        listed = subprocess.run(["pgrep", "-P", ",".join(map(str, new))], capture_output=True, text=True, check=False).stdout
        new = {int(line) for line in listed.split()} - found
        found |= new
    return found


def test_all_of_a_sandbox_is_gone_and_reaped_when_it_closes() -> None:
    with sandbox.Sandbox("program", sandbox.Limits()) as running:
        command = {"op": "load", "source": "import os\nfor _ in range(5): os.fork()", "cpu": 5.0, "wall": 5.0}
        running.ask(command, 10.0)
        inside = _below(running.process.pid)
        assert len(inside) > 2
    assert not any(Path("/proc", str(pid)).exists() for pid in inside)


def test_a_spare_starts_fresh_and_goes_with_its_process() -> None:
    case = Problem("x", [], (), ["assert f() == []"], ("code",))
    source = "```python\nimport os\ndef f():\n    found = os.listdir('.')\n    open('x', 'w')\n    return found\n```"
    with Grader(1) as grader:
        assert [verdict.score for verdict in grader.grade([(source + " " * at, case) for at in range(4)])] == [1.0] * 4
        inside = {pid for worker in grader.pids() for pid in _below(worker)}
        assert inside
    until = time.monotonic() + 60
    while any(Path("/proc", str(pid), "exe").exists() for pid in inside) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(Path("/proc", str(pid), "exe").exists() for pid in inside)


def test_nothing_is_left_written() -> None:
    before = set(os.listdir("/tmp"))
    output = run_script(
        "open('/tmp/left-behind', 'w').write('x'); print(open('/tmp/left-behind').read())", b"", 30.0, sandbox.Limits()
    )
    assert output.text == b"x\n"
    assert "left-behind" not in set(os.listdir("/tmp")) - before


def test_each_sandbox_starts_clean() -> None:
    for _ in range(2):
        output = run_script("import os; print(os.listdir('.')); open('x', 'w')", b"", 30.0, sandbox.Limits())
        assert output.text == b"[]\n"


def test_filter_refuses_by_architecture() -> None:
    assert seccomp_filter("riscv64") is None
    for machine in ("x86_64", "aarch64"):
        program = seccomp_filter(machine)
        assert program is not None
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096
