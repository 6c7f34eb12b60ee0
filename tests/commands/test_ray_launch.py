"""`rlvr.resources.learners` in a Ray cluster: what ranks are told, what is heard of them, and that all of them end together.

The cluster is real, and the ranks are small commands behind the boundary of the command line, but for the last test.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray", reason="ray is not installed")

import ray
import yaml

from tests.commands import test_launch
from tests.commands.test_launch import FAILURES, LIMIT, RANK, ended, wait_for
from tulu.config.cluster import start_alone

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = """
import sys, typer
from tulu.commands import launch, ray_launch
from tulu.commands.boundary import Boundary
launch.HOLD, launch.TO_FOLLOW, launch.TO_CLOSE = 0.5, 2.5, 1.0
ray_launch.PLACE_SECONDS, ray_launch.TELL_SECONDS = {patience}, 0.6
app = typer.Typer(cls=Boundary, pretty_exceptions_enable=False)

@app.callback()
def begin() -> None:
    pass

@app.command()
def start() -> None:
    ray_launch.launch_in_ray({count}, [sys.executable, "rank.py"])

app(["start"])
"""
TOGETHER = test_launch.TOGETHER.replace("WORLD", "2")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster with room for three: ranks, or two ranks and a grader."""
    start_alone(num_cpus=3)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def start(tmp_path: Path, address: str) -> Iterator[Start]:
    """start(count, lines...): a launcher of ranks that run these lines, in the folder of the test.

    It waits for `patience` seconds until there is room for them.
    """
    started: list[subprocess.Popen[str]] = []

    def begin(count: int, *body: str, at: str = address, patience: float = LIMIT) -> "subprocess.Popen[str]":
        lines = "\n".join(f"    {line}" for line in body)
        (tmp_path / "rank.py").write_text(RANK.replace("{body}", lines))
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")}
        environment |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "RAY_ADDRESS": at, "MINE": "handed on"}
        command = [sys.executable, "-c", LAUNCHER.replace("{count}", str(count)).replace("{patience}", str(patience))]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def told(folder: Path, rank: int) -> dict[str, str]:
    """The environment of a rank."""
    return dict(json.loads((folder / f"rank-{rank}").read_text()))


def test_ranks_know_each_other_and_rank_0_speaks_for_all(start: Start, tmp_path: Path, address: str) -> None:
    code, out, err = ended(start(2, "print('out of', rank)", "print('word of', rank, file=sys.stderr)", TOGETHER))
    assert (code, out) == (0, "out of 0\n"), err
    assert [line for line in err.splitlines() if line.startswith("word")] == ["word of 0"]
    ranks = [told(tmp_path, rank) for rank in range(2)]
    assert [(each["RANK"], each["LOCAL_RANK"]) for each in ranks] == [("0", "0"), ("1", "1")]
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"]) for each in ranks} == {("2", "2")}
    assert len({(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in ranks}) == 1
    assert {(each["RAY_ADDRESS"], each["MINE"], each["CUDA_VISIBLE_DEVICES"]) for each in ranks} == {(address, "handed on", "")}
    assert {each["OMP_NUM_THREADS"] for each in ranks} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}


@pytest.mark.parametrize("kind", ["a bug", "killed"])
def test_a_rank_that_fails_ends_the_others_with_one_message(kind: str, start: Start) -> None:
    failure, expected_code, message = FAILURES[kind]
    body = ("if rank == 1:", f"    {TOGETHER}", f"    {failure}", "time.sleep(600)")
    began = time.monotonic()
    code, _, err = ended(start(2, *body))
    assert time.monotonic() - began < LIMIT
    assert (code, err.count("of 2")) == (expected_code, 1), err
    assert err.startswith(message.replace("rank 2 of 3", "rank 1 of 2"))


def test_a_rank_whose_node_is_gone_is_told(start: Start, tmp_path: Path) -> None:
    """What Ray tells of an actor that was killed is what it tells of one whose node died."""
    process = start(2, TOGETHER, "time.sleep(600)")
    files = [tmp_path / f"rank-{rank}" for rank in range(2)]
    wait_for(lambda: all(file.exists() and file.read_text().endswith("}") for file in files))
    os.kill(int(told(tmp_path, 1)["TULU_LAUNCHER"]), signal.SIGKILL)
    code, _, err = ended(process)
    assert code == 1
    assert err.startswith("rank 1 of 2 is lost: The actor died"), err
    assert "Run the same command again" in err


def test_a_ctrl_c_reaches_every_rank_once_and_they_may_save(start: Start, tmp_path: Path) -> None:
    """Ray blocks that signal in its own processes, which the ranks must not inherit."""
    body = (
        "stopped = []",
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, lambda *_: stopped.append(1))",
        "Path(f'ready-{rank}').touch()",
        "while not stopped: time.sleep(0.05)",
        "time.sleep(1)",
        "Path(f'saved-{rank}').write_text(str(len(stopped)))",
        "raise KeyboardInterrupt",
    )
    process = start(2, *body)
    wait_for(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in range(2)))
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert (code, err.strip()) == (130, "interrupted; run the same command again: what can be resumed is")
    assert [(tmp_path / f"saved-{rank}").read_text() for rank in range(2)] == ["1", "1"]


def test_no_rank_survives_its_launcher(start: Start, tmp_path: Path) -> None:
    process = start(2, "Path(f'pid-{rank}').write_text(str(os.getpid()))", TOGETHER, "time.sleep(600)")
    pids = [tmp_path / f"pid-{rank}" for rank in range(2)]
    wait_for(lambda: all(pid.exists() and pid.read_text() for pid in pids))
    process.kill()
    wait_for(lambda: not any(psutil.pid_exists(int(pid.read_text())) for pid in pids))


def test_a_cluster_without_room_is_told(start: Start) -> None:
    code, _, err = ended(start(9, patience=1.0))
    assert code == 2
    assert "rlvr.resources.learners=9: waited" in err
    assert "9 CPUs for the learners; the Ray cluster has 3, of which 3 are free" in err.replace("\n", " ")


def test_an_address_where_no_cluster_is_is_told(start: Start) -> None:
    code, _, err = ended(start(2, at="ray://127.0.0.1:10001"))
    assert (code, err.startswith("RAY_ADDRESS=ray://127.0.0.1:10001: that is Ray's client server")) == (2, True), err
    code, _, err = ended(start(2, at="127.0.0.1:9"))
    assert code == 2
    assert err.startswith("RAY_ADDRESS=127.0.0.1:9: no Ray cluster can be reached there ("), err
    assert "Traceback" not in err


RECIPE = {
    "name": "ranks",
    "template": "tulu",
    "rlvr": {
        "verifier": "length.py:score",
        "prompts": 4,
        "samples": 2,
        "batch": 8,
        "micro_batch": 4,
        "max_prompt": 32,
        "max_tokens": 8,
        "max_length": 64,
        "steps": 100000,
        "learning_rate": 1.0e-4,
        "precision": "fp32",
        "engine": "transformers",
        "refill": False,
        "sharding": "fsdp2",
    },
}


def test_two_learners_train_and_a_ctrl_c_leaves_a_checkpoint(
    address: str, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    rows, said = tmp_path / "rows.jsonl", tmp_path / "stderr"
    rows.write_text(
        "".join(json.dumps({"messages": [{"role": "user", "content": f"q{n}"}], "ground_truth": "a"}) + "\n" for n in range(40))
    )
    (tmp_path / "length.py").write_text("def score(completion, ground_truth):\n    return len(completion) % 2\n")
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({**RECIPE, "model": str(tiny_model("qwen3")), "rlvr": {**RECIPE["rlvr"], "data": str(rows)}})  # type: ignore[dict-item]
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "RAY_ADDRESS": address,
    }
    command = [sys.executable, "-m", "tulu", "rlvr", "mine.yaml", "rlvr.resources.learners=2", "rlvr.resources.graders=1"]
    with said.open("w") as errors:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=errors, text=True)
    run = tmp_path / "runs" / "ranks" / "rlvr"
    try:
        wait_for(lambda: (run / "metrics.jsonl").exists() or process.poll() is not None, 240)
        assert process.poll() is None, said.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130, said.read_text()
    finally:
        process.kill()
    steps = len((run / "metrics.jsonl").read_text().splitlines())
    [checkpoint] = (run / "checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{steps:06d}"
    assert {file.name for file in checkpoint.glob("shards_*.bin")} == {"shards_0.bin", "shards_1.bin"}
    text = said.read_text()
    assert "ranks: 2 on 1 node of the Ray cluster" in text
    assert "verdicts: graders in Ray: 1" in text, "rank 0 is connected to the cluster too"
    assert text.count("interrupted; run the same command again: what can be resumed is") == 1
    assert "Traceback" not in text
