"""A run that is killed at any moment, as often as one likes, trains what an unbroken one trains, and samples nothing twice."""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from tests.rollout.fakes import teaches
from tests.rollout.killed import PROBLEMS, SECTION, STEPS
from tulu.config.schema import Rlvr
from tulu.data.mixing import order

ROOT = Path(__file__).resolve().parents[2]


def journal(folder: Path, event: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "run" / "journal").read_text().splitlines()]
    return [row for row in rows if row["event"] == event]


def trained(folder: Path) -> Counter[tuple[int, str, int]]:
    """(position, problem, sample) of everything that was trained."""
    return Counter(
        (position, name, sample)
        for row in journal(folder, "trained")
        for position, name in zip(row["positions"], row["rows"], strict=True)
        for sample in range(SECTION["samples"])
    )


def name_at(position: int, seed: int) -> str:
    epoch, place = divmod(position, PROBLEMS)
    return f"p{order(PROBLEMS, seed, epoch)[place]}"


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: what is killed is the process, and no disk need be waited for."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize(("max_staleness", "kills"), [(0, 40), (2, 60)])
def test_a_hundred_kills_lose_and_repeat_nothing(max_staleness: int, kills: int, in_memory: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    arguments = [str(in_memory / "runs"), str(kills), str(max_staleness), str(seed)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.rollout.killed", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    died = json.loads(done.stdout)
    assert sum(died.values()) == kills, f"seed {seed}"

    whole = in_memory / "runs" / "whole"
    expected = trained(whole)
    stage_seed = Rlvr.model_fields["seed"].default
    graded = [position for row in journal(whole, "graded") for position in row["positions"]]
    assert sorted(graded) == list(range(len(graded))), "every prompt is drawn and graded once, in whatever order"
    teaching = [position for position in range(len(graded)) if teaches(name_at(position, stage_seed))]
    assert sorted({position for position, *_ in expected}) == teaching, "and trained once, if its group teaches anything"
    assert expected.total() == STEPS * SECTION["batch"]
    for name in died:
        broken = in_memory / "runs" / name
        assert trained(broken) == expected, f"seed {seed}: {name}"
        assert [row["step"] for row in journal(broken, "trained")] == list(range(1, STEPS + 1))
        if max_staleness == 0:
            assert journal(broken, "trained") == journal(whole, "trained")
            weights = [torch.load(folder / "weights.pt")["weight"] for folder in (whole, broken)]
            assert torch.equal(*weights), f"seed {seed}: {name}"
        else:
            lines = [json.loads(line) for line in (broken / "run" / "metrics.jsonl").read_text().splitlines()]
            assert min(line["staleness"] for line in lines) >= 0
            assert max(line["staleness_max"] for line in lines) <= max_staleness
