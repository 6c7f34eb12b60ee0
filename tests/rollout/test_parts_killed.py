"""Whatever is killed at random moments, the command, a learner rank, an engine or a grader, each rollout is trained once.

    TULU_KILLS=100 python -m pytest tests/rollout/test_parts_killed.py     # writes benchmarks/results/kills.json

All of them are real processes (killed_parts.py). test_stream_killed has a hundred kills of a process that is all of them at once.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

pytest.importorskip("ray", reason="ray is not installed")

from tests.rollout.kill_results import keep

ROOT = Path(__file__).resolve().parents[2]
KILLS = int(os.environ.get("TULU_KILLS", "8"))
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.skipif(sys.platform != "linux", reason="it adopts what is left behind")]


def trained(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "killed" / "rlvr" / "journal").read_text().splitlines()]
    return [row for row in rows if row["event"] == "trained"]


def tables(folder: Path) -> list[list[dict[str, Any]]]:
    """The rollouts of every step."""
    return [pyarrow.parquet.read_table(path).to_pylist() for path in sorted((folder / "killed/rlvr/rollouts").glob("*.parquet"))]


def multiset(folder: Path) -> Counter[tuple[str, int]]:
    """(prompt, sample) of everything that was trained, by what each step says of its prompts and kept of its completions."""
    found = Counter[tuple[str, int]]()
    for row, rollouts in zip(trained(folder), tables(folder), strict=True):
        places = Counter[str]()
        for rollout in rollouts:
            assert rollout["trained"]
            found[rollout["id"], places[rollout["id"]]] += 1
            places[rollout["id"]] += 1
        assert sorted(places) == sorted(row["rows"])
    return found


def sampled(folder: Path) -> list[list[tuple[str, list[int], float]]]:
    """What each step trained on, and what it was worth."""
    return [sorted((one["id"], one["token_ids"], one["reward"]) for one in rollouts) for rollouts in tables(folder)]


def test_whatever_is_killed_every_rollout_is_trained_once(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    quiet = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.rollout.killed_parts", str(tmp_path), str(KILLS), str(seed)],
        cwd=ROOT,
        env={**os.environ, **quiet},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-6000:]}"
    said = json.loads(done.stdout.splitlines()[-1])
    assert sum(sum(of.values()) for of in said["died"].values()) == KILLS, f"seed {seed}: {done.stderr[-3000:]}"

    whole = tmp_path / "whole"
    expected = multiset(whole)
    steps = [row["step"] for row in trained(whole)]
    assert (set(expected.values()), len(expected)) == ({1}, 4 * len(steps)), "each once: two prompts of two samples a step"
    assert {one["engine"] for rollouts in tables(whole) for one in rollouts} == {"engine-1", "engine-2"}
    weights = (whole / "killed/rlvr/model/model.safetensors").read_bytes()
    for name in said["died"]:
        broken = tmp_path / name
        assert multiset(broken) == expected, f"seed {seed}: {name}"
        assert [row["step"] for row in trained(broken)] == steps, f"seed {seed}: {name}"
        if name.startswith("staleness-0"):
            assert trained(broken) == trained(whole), f"seed {seed}: {name}"
            assert sampled(broken) == sampled(whole), f"seed {seed}: {name}"
            same = (broken / "killed/rlvr/model/model.safetensors").read_bytes() == weights
            assert same, f"seed {seed}: the weights of {name} are others"
    if "TULU_KILLS" in os.environ:
        keep("kills.json", f"TULU_KILLS={KILLS} pytest {Path(__file__).relative_to(ROOT)}", summary(said, seed))


def summary(said: dict[str, Any], seed: int) -> dict[str, Any]:
    """What is kept of many kills."""
    by_kind = sum((Counter(of) for of in said["died"].values()), Counter[str]())
    return {
        "kills": by_kind.total(),
        "killed": dict(sorted(by_kind.items())),
        "runs": len(said["died"]),
        "multisets_equal": len(said["died"]),
        "weights_identical": sum(name.startswith("staleness-0") for name in said["died"]),
        "seconds": round(said["seconds"], 1),
        "processor_seconds": round(said["processor_seconds"], 1),
        "seed": seed,
    }
