"""Ranks of `--gpus` as they really train: asked to stop, resumed, one of them killed; and ranks that disagree."""

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

from tulu.commands.launch import reserved_port

ROOT = Path(__file__).resolve().parents[2]
RECIPE = """\
name: ranks
model: {model}
template: tulu
sft:
  zero: 1
  data: {rows}
  max_length: 64
  batch: 4
  micro_batch: 2
  steps: 100000
  schedule: constant
  learning_rate: 1.0e-4
  precision: fp32
"""
LIMIT = 240.0
"""Seconds that a busy machine may take for a start."""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    rows, file = tmp_path / "rows.jsonl", tmp_path / "mine.yaml"
    rows.write_text("".join(json.dumps({"prompt": f"q{row}", "completion": f"a{row}"}) + "\n" for row in range(40)))
    file.write_text(RECIPE.format(model=tiny_model("qwen3"), rows=rows))
    return file


def start(folder: Path, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    plain = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    quiet = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with (folder / f"stderr-{environment.get('RANK', 'all')}").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "tulu", *arguments], env={**plain, **quiet, **environment}, stderr=said, text=True, cwd=folder
        )


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Processes that end with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def steps(folder: Path) -> int:
    """Steps that the log holds."""
    file = folder / "runs" / "ranks" / "sft" / "metrics.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def until_it_trains(process: "subprocess.Popen[str]", folder: Path, beyond: int) -> None:
    until = time.monotonic() + LIMIT
    while steps(folder) <= beyond:
        assert process.poll() is None, (folder / "stderr-all").read_text()
        assert time.monotonic() < until, "it never trained"
        time.sleep(0.1)


def test_ranks_stop_with_a_checkpoint_resume_and_die_together(
    recipe: Path, tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    command = ["sft", str(recipe), "--gpus", "2", "--runs", str(tmp_path / "runs")]
    first = start(tmp_path, *command)
    started.append(first)
    until_it_trains(first, tmp_path, beyond=1)
    first.send_signal(signal.SIGINT)
    assert first.wait(LIMIT) == 130
    said = (tmp_path / "stderr-all").read_text()
    assert said.count("interrupted; run the same command again: what can be resumed is") == 1
    assert "Traceback" not in said
    done = steps(tmp_path)
    checkpoints = list((tmp_path / "runs" / "ranks" / "sft" / "checkpoints").glob("step-*"))
    assert [file.name for file in checkpoints] == [f"step-{done:06d}"]

    second = start(tmp_path, *command)
    started.append(second)
    until_it_trains(second, tmp_path, beyond=done)
    ranks = psutil.Process(second.pid).children()
    assert len(ranks) == 2
    [other] = [rank for rank in ranks if rank.environ()["RANK"] == "1"]
    died = time.monotonic()
    other.kill()
    assert second.wait(LIMIT) == 1
    assert time.monotonic() - died < LIMIT / 2
    said = (tmp_path / "stderr-all").read_text()
    assert f"resumed {tmp_path}/runs/ranks/sft at step {done}" in said
    assert said.count("rank 1 of 2 was killed (SIGKILL)") == 1
    assert "Traceback" not in said
    assert "rank 0" not in said
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert alive == []


def test_ranks_with_different_recipes_are_told_which_and_what(
    recipe: Path, tmp_path: Path, started: list["subprocess.Popen[str]"]
) -> None:
    """As where a launcher of several machines starts each with a recipe of its own."""
    with reserved_port() as port:
        for rank in range(2):
            names = {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            started.append(start(tmp_path, "sft", str(recipe), f"sft.seed={rank + 1}", "--runs", str(tmp_path / "runs"), **names))
        assert [process.wait(LIMIT) for process in started] == [2, 2]
    said = (tmp_path / "stderr-0").read_text()
    assert "the processes do not see what rank 0 sees" in said
    assert "rank 1: recipe.sft.seed: 1 -> 2" in said
    assert "Traceback" not in said + (tmp_path / "stderr-1").read_text()
