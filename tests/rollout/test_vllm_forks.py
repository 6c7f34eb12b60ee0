"""The fork server of engine cores: what its children see, and that it ends with the process which started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tulu.rollout import vllm_forks
from tulu.rollout.vllm_forks import LIBRARIES, ForkContext, ForkServer, fork_server, libraries

OWNER_OF_ONE = """
import os, sys, time
import psutil
from tulu.rollout.vllm_forks import ForkContext, ForkServer

def tell(place):
    print(place, os.environ["LATER"], "EARLIER" in os.environ, "TULU_FORK_SERVER_OF" in os.environ, os.getppid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    os.environ["EARLIER"] = "1"
    given = dict(os.environ)
    server = ForkServer()
    assert dict(os.environ) == given, "what the server alone is given"
    del os.environ["EARLIER"]
    asked = ForkContext().Process(target=tell, args=("child",))
    os.environ["LATER"] = "3"
    if "killed" in sys.argv:
        [first] = [one for one in psutil.Process().children() if "forkserver" in " ".join(one.cmdline())]
        first.kill()
        while first.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        server.ensure_running()
    asked.start()
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes end with their parents on Linux alone")
@pytest.mark.parametrize("before", ["begun", "killed"])
def test_children_have_the_environment_of_the_asking_and_the_server_ends_with_its_owner(before: str, tmp_path: Path) -> None:
    """Even where the server is stopped and its owner is killed; and one in place of another that was killed does as well."""
    (tmp_path / "owner.py").write_text(OWNER_OF_ONE)
    # The server imports no vLLM here, which a folder of that name hides.
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError('not here')")
    root = str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    command = [sys.executable, str(tmp_path / "owner.py"), before]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        *told, server = owner.stdout.readline().split()
        assert told == ["child", "3", "False", "False"]
        assert psutil.Process(int(server)).ppid() == owner.pid
        [child] = psutil.Process(int(server)).children()
        try:
            os.kill(int(server), signal.SIGSTOP)
            owner.kill()
            assert is_gone(int(server)), "a stopped one is killed, too"
        finally:
            child.kill()


def is_gone(pid: int) -> bool:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_cores_come_from_it_where_vllm_chose_the_libraries_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    own = object()
    utils = SimpleNamespace(get_mp_context=lambda: own)
    plain = utils.get_mp_context
    for name in ("vllm", "vllm.v1", "vllm.v1.engine"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(utils=utils))
    monkeypatch.setattr(vllm_forks.forkserver, "ensure_running", lambda: None)
    monkeypatch.setenv(LIBRARIES, "/lib/libgomp.so.1")
    server = ForkServer()
    with server.serving():
        assert isinstance(utils.get_mp_context(), ForkContext)
        monkeypatch.setenv(LIBRARIES, "/lib/libtcmalloc.so:/lib/libgomp.so.1")
        assert utils.get_mp_context() is own
    assert utils.get_mp_context is plain


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has one")
def test_there_is_one_for_a_single_worker_without_a_gpu_where_it_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm_forks.forkserver, "ensure_running", lambda: None)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    assert fork_server() is None
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    assert isinstance(fork_server(), ForkServer)

    def too_long() -> None:
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(vllm_forks.forkserver, "ensure_running", too_long)
    given = dict(os.environ)
    assert fork_server() is None
    assert dict(os.environ) == given
    assert "no fork server starts (AF_UNIX path too long)" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux preloads libraries")
def test_libraries_are_those_that_vllm_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIBRARIES, raising=False)
    found = libraries()
    assert found == "" or Path(found).is_file()
    monkeypatch.setenv(LIBRARIES, "/lib/mine.so")
    assert libraries() == ":".join(filter(None, ["/lib/mine.so", found]))
    monkeypatch.setenv(LIBRARIES, "/lib/libiomp5.so")
    assert libraries() == "/lib/libiomp5.so"
