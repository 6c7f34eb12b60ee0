"""What a process knows about itself before it is connected to others."""

import os
import signal
import subprocess
import sys

import pytest

from tulu.config.gpus import count_gpus
from tulu.config.processes import STOPS, first_host, handling, is_main_process, names_from_srun, to_launch, world_size
from tulu.errors import RecipeError


def test_world_size_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(RecipeError, match="WORLD_SIZE='two'"):
        world_size()


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("unset", True)])
def test_rank_0_speaks_for_all(monkeypatch: pytest.MonkeyPatch, rank: str | None, main: bool) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_main_process() == main


STEP = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_JOB_NODELIST": "gpu-[007-008]",
}


def test_srun_is_translated() -> None:
    assert names_from_srun(STEP) == {
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu-007",
        "MASTER_PORT": "24567",
    }


def test_srun_gives_what_nobody_set() -> None:
    assert names_from_srun({**STEP, "RANK": "3"}) == {}, "torchrun runs in the step"
    told = names_from_srun({**STEP, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert told == {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}


def test_a_task_that_sees_one_gpu_takes_it() -> None:
    assert names_from_srun({**STEP, "CUDA_VISIBLE_DEVICES": "0,1"})["LOCAL_RANK"] == "1"
    assert names_from_srun({**STEP, "CUDA_VISIBLE_DEVICES": "1"})["LOCAL_RANK"] == "0"


def test_one_task_is_no_srun_of_several() -> None:
    assert names_from_srun({**STEP, "SLURM_STEP_NUM_TASKS": "1"}) == {}
    assert names_from_srun({}) == {}
    batch_script = {name: value for name, value in STEP.items() if "STEP" not in name}
    assert names_from_srun({**batch_script, "SLURM_PROCID": "0"}) == {}, "sbatch -n 16 runs the script itself once"
    older = {name: value for name, value in STEP.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert names_from_srun(older)["WORLD_SIZE"] == "16"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu-[007-010,12],login", "gpu-007"),
        ("gpu-[3,5-6]", "gpu-3"),
        ("rack[1-2]-node[2,4]", "rack1-node2"),
        ("a[1-2].cluster.org", "a1.cluster.org"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 4), ("0,1", 2), ("2", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("GPU-a,GPU-b,GPU-c", 3)]
)
def test_gpus_are_those_that_cuda_shows(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.config.gpus._present", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus() == count


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.config.gpus._present", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert count_gpus() == 0


def test_a_single_rank_of_torchrun_launches_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (to_launch(None), to_launch(1), to_launch(8)) == (0, 0, 8)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RecipeError, match="started 1 process already"):
        to_launch(8)


def test_ray_starts_a_single_rank_too_and_none_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU of a single learner may be on another node than the command."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert to_launch(1, in_ray=True) == 1
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert to_launch(1, in_ray=True) == 0
    with pytest.raises(RecipeError, match=r"rlvr.resources.learners 8: a launcher .* leave rlvr.resources.learners out"):
        to_launch(8, "rlvr.resources.learners", in_ray=True)


ENDS = """
import atexit, sys
from tulu.config.processes import leaving_at_once
class Last:
    def __del__(self): print("Python ended", flush=True)
last = Last()
with leaving_at_once():
    atexit.register(print, "what is registered has run")
    print("done")
    sys.exit({status!r})
"""


@pytest.mark.parametrize(("world", "end"), [("1", ["Python ended"]), ("2", []), ("x", ["Python ended"])])
@pytest.mark.parametrize(("status", "code"), [(0, 0), (None, 0), (3, 3), ("a message", 1)])
def test_a_rank_that_is_done_does_not_wait_for_the_end_of_python(
    world: str, end: list[str], status: str | int | None, code: int
) -> None:
    """Its output is whole, what is registered for the end has run, and the exit status is the one that was asked for."""
    environment = {**os.environ, "WORLD_SIZE": world}
    command = [sys.executable, "-c", ENDS.format(status=status)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()) == (code, ["done", "what is registered has run", *end])
    assert done.stderr.strip() == ("a message" if code == 1 else "")


def test_a_closed_terminal_asks_to_stop_unless_it_is_to_be_ignored() -> None:
    """`nohup` lets SIGHUP be ignored, and what it starts must not listen to it."""
    before = {number: signal.getsignal(number) for number in STOPS}
    received: list[int] = []
    with handling(lambda number, _: received.append(number)):
        for number in STOPS:
            os.kill(os.getpid(), number)
    assert received == [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handling(lambda number, _: received.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
        assert received[3:] == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
    assert {number: signal.getsignal(number) for number in STOPS} == before
