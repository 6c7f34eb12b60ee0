"""Every sharding with two and four processes: it ends where one process does, and a rank that dies costs nothing but time.

`make test-ranks` runs all cells; without TULU_ALL_RANKS eight of them run, which hold every sharding with every kind of
training, and every sharding but ZeRO-1 and ZeRO-2 with four processes.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.ranks.launch import launch, run
from tests.ranks.stages import KINDS, Cell, Death, folder_of

SHARDINGS = ("none", "zero1", "zero2", "zero3", "fsdp2")
ALL = bool(os.environ.get("TULU_ALL_RANKS"))
CELLS = [Cell(sharding, world) for world in (2, 4) for sharding in SHARDINGS]
DYING = dict(zip(CELLS, ["sft", "dpo", "rm", "grpo", "ppo", "dpo", "rm", "grpo", "ppo", "sft"], strict=True))
"""The kind of training in which a rank dies where not all are tried; a column of it holds every kind."""
IN_CI = [cell for cell in CELLS if cell.world == 2 or cell.sharding not in ("zero1", "zero2")]


def weights(cell: Cell, kind: str, folder: Path) -> dict[str, Tensor]:
    return load_file(folder_of(cell, kind, folder) / "model" / "model.safetensors")


def looked(cell: Cell, kind: str, folder: Path) -> list[dict[str, Any]]:
    """What a run found out at its looks."""
    lines = [json.loads(line) for line in (folder_of(cell, kind, folder) / "metrics.jsonl").read_text().splitlines()]
    found = [{name: value for name, value in line.items() if name.startswith("eval/")} for line in lines]
    return [{name: value for name, value in line.items() if name != "eval/seconds"} for line in found if line]


def start(kind: str, folder: Path) -> dict[str, Tensor]:
    """The weights from which one process began a kind of training."""
    before = {"sft": None, "dpo": "sft", "rm": "sft", "grpo": "dpo", "ppo": "dpo"}[kind]
    return weights(Cell("none", 1), before, folder) if before else load_file(folder / "model" / "model.safetensors")


def largest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of any weight that both have."""
    return max(float((found[name] - expected[name]).abs().max()) for name in found.keys() & expected.keys())


@pytest.mark.parametrize("cell", CELLS if ALL else IN_CI, ids=lambda cell: cell.name)
def test_a_cell_ends_where_one_process_does_and_survives_a_death(cell: Cell, folder: Path) -> None:
    one = Cell("none", 1)
    run(cell, folder)
    for kind in KINDS:
        alone, together = weights(one, kind, folder), weights(cell, kind, folder)
        assert alone.keys() == together.keys()
        assert largest(alone, start(kind, folder)) > 2e-3, f"{kind} moved nothing, so that nothing is compared"
        assert largest(together, alone) < 1e-6, kind
        found, expected = looked(cell, kind, folder), looked(one, kind, folder)
        assert found == [pytest.approx(line, rel=1e-4, abs=1e-5) for line in expected], kind
        assert len(expected) == (0 if kind == "ppo" else 2), "after the second step and the last"
    for kind in KINDS if ALL else (DYING[cell],):
        resumes_to_the_same_bits(cell, kind, folder)


def resumes_to_the_same_bits(cell: Cell, kind: str, folder: Path) -> None:
    """Train a kind once more, let the last rank die in its third step, and train it to its end."""
    whole = weights(cell, kind, folder)
    run_folder = folder_of(cell, kind, folder)
    aside = run_folder.with_name("aside")
    run_folder.rename(aside)
    codes = launch(cell, folder, (kind,), Death(kind, rank=cell.world - 1))
    assert codes[-1] == -signal.SIGKILL
    assert all(codes), "the others ended too, and not as if all were well"
    assert not (run_folder / "model").exists()
    assert sorted(path.name for path in (run_folder / "checkpoints").iterdir())[-1] == "step-000002"
    run(cell, folder, (kind,))
    assert "resumed" in (folder / f"{cell.name}-0.log").read_text()
    again = weights(cell, kind, folder)
    assert all(torch.equal(again[name], whole[name]) for name in whole), kind
    shutil.rmtree(aside)
