"""Another system than Linux: what only Linux has is hidden, and everything else works without it."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import tulu
from tulu.config import processes
from tulu.config.cores import cores
from tulu.config.job import make_job
from tulu.config.load import load_recipe
from tulu.errors import RecipeError
from tulu.grading.grader import Grader
from tulu.grading.process import Process
from tulu.types import Problem

OF_LINUX = ("sched_getaffinity", "sched_setaffinity", "memfd_create", "posix_fallocate", "eventfd", "pidfd_open")
"""Functions of `os` that macOS lacks."""
HIDE = f"""
import os, ctypes, pathlib
for name in {OF_LINUX!r}:
    if hasattr(os, name):
        delattr(os, name)
class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "prctl":
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = Library
read_text = pathlib.Path.read_text
def read(self, *args, **options):
    if str(self).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(self))
    return read_text(self, *args, **options)
pathlib.Path.read_text = read
"""
NEEDS_VLLM = ("tulu.rollout.vllm_extension", "tulu.rollout.vllm_pulse", "tulu.rollout.vllm_transfer")
"""Modules that only processes of vLLM import."""


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_LINUX:
        monkeypatch.delattr(os, name, raising=False)


def test_modules_that_name_what_linux_has_are_imported_without_it() -> None:
    """The modules are found by their words, so that a new one is among them."""
    package = Path(tulu.__file__).parent
    files = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    words = re.compile("|".join([*OF_LINUX, "prctl", "/proc", "sysconf", "setrlimit", "fcntl", "os.fork"]))
    named = {".".join(("tulu", *path.relative_to(package).with_suffix("").parts)) for path in files if words.search(files[path])}
    wanted = sorted(named - set(NEEDS_VLLM))
    assert {"tulu.grading.process", "tulu.config.cores", "tulu.config.lock", "tulu.environments.worker"} <= set(wanted)
    code = f"""{HIDE}
import importlib
for name in {wanted!r}:
    importlib.import_module(name)
from tulu.train.manifest import hardware
assert hardware()["cores"] == os.cpu_count() and hardware()["memory_gib"] > 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_cores_without_binding_are_those_of_the_machine(mac: None) -> None:
    assert cores() == os.cpu_count()


def test_grading_needs_no_files_in_memory_and_no_proc(mac: None, monkeypatch: pytest.MonkeyPatch) -> None:
    read_text = Path.read_text

    def read(self: Path, *args: object, **options: object) -> str:
        if str(self).startswith("/proc"):
            raise FileNotFoundError(2, "No such file or directory", str(self))
        return read_text(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", read)
    with Grader(1) as grader:
        problem = Problem("a:1", (), (), "x = 2", ("math",), {})
        assert [verdict.score for verdict in grader.grade([("$x = 2$", problem), ("$x = 3$", problem)])] == [1.0, 0.0]
    process = Process(512, 5.0)
    try:
        expected = psutil.Process(process.popen.pid).cpu_times()
        assert process._cpu() >= expected.user + expected.system - 0.1
    finally:
        process.kill()
    assert process._cpu() == 0.0


def test_a_process_ends_with_its_parent_without_prctl(tmp_path: Path) -> None:
    code = f"""{HIDE}
import subprocess, sys, time
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
    print(child.pid, flush=True)
    time.sleep(60)
from tulu.config import processes
processes._LOOK_EVERY = 0.05
processes.end_with_the_parent()
open("ready", "w").close()
time.sleep(60)
"""
    (tmp_path / "code.py").write_text(code)
    path = {**os.environ, "PYTHONPATH": str(Path(tulu.__file__).parents[1])}
    parent = subprocess.Popen(
        [sys.executable, "code.py"], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=path, process_group=0
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert child.is_running()
        parent.kill()
        parent.wait()
        child.wait(timeout=50)
    finally:
        if child.is_running():
            child.kill()
        parent.kill()
        parent.stdout.close()


def test_with_prctl_the_kernel_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    class Library:
        def prctl(self, what: int, number: int) -> None:
            asked.append((what, number))

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Library())
    processes.end_with_the_parent()
    assert asked == [(1, signal.SIGKILL)]


def test_engines_of_their_own_are_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", ["rlvr.resources.engines=2", "rlvr.engine=auto", "rlvr.start=x/y"])
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RecipeError, match=r"rlvr\.resources\.engines is 2: engines in processes of their own need Linux"):
        make_job(recipe, "rlvr", tmp_path)
