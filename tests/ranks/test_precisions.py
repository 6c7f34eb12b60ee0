"""Precisions and adapters mean the same in every sharding, and what is saved of them is exact.

Without TULU_ALL_RANKS one cell of each kind runs: weights that are whole, and weights that are sharded in both ways.
"""

from pathlib import Path

import pytest
import torch

from tests.ranks.launch import run
from tests.ranks.stages import Cell
from tests.ranks.test_matrix import ALL, SHARDINGS, largest, resumes_to_the_same_bits, start, weights

# DeepSpeed does not compute in float16 on most CPUs.
HALVED = [*(("bf16", sharding) for sharding in SHARDINGS), ("fp16", "none"), ("fp16", "fsdp2")]
HALVED_IN_CI = [("bf16", "zero3"), ("bf16", "fsdp2"), ("fp16", "none")]
ADAPTED = [(precision, sharding) for precision in ("fp32", "bf16") for sharding in SHARDINGS]
ADAPTED_IN_CI = [("fp32", "zero3"), ("bf16", "fsdp2")]
OFFLOADED = SHARDINGS
OFFLOADED_IN_CI = ["zero2", "fsdp2"]


@pytest.mark.parametrize(("precision", "sharding"), HALVED if ALL else HALVED_IN_CI)
def test_two_processes_end_where_one_does_in_16_bits(precision: str, sharding: str, folder: Path) -> None:
    """The model on disk is float32, so a sharding that began from rounded weights would end 1e-3 away.

    The order of summation moves a master by 1e-8. Where that turns the rounding of a weight, later steps differ by more.
    """
    one, two = Cell("none", 1, precision), Cell(sharding, 2, precision)
    for cell in (one, two):
        if not (folder / "runs" / cell.name / "sft" / "model").exists():
            run(cell, folder, ("sft",))
    alone, together = weights(one, "sft", folder), weights(two, "sft", folder)
    assert largest(alone, start("sft", folder)) > 2e-3
    assert largest(together, alone) < 1e-4
    resumes_to_the_same_bits(two, "sft", folder)


@pytest.mark.parametrize(("precision", "sharding"), ADAPTED if ALL else ADAPTED_IN_CI)
def test_adapters_are_merged_into_exact_weights(precision: str, sharding: str, folder: Path) -> None:
    one, two = Cell("none", 1, precision, lora=True), Cell(sharding, 2, precision, lora=True)
    for cell in (one, two):
        if not (folder / "runs" / cell.name / "sft" / "model").exists():
            run(cell, folder, ("sft",))
    alone, together, before = weights(one, "sft", folder), weights(two, "sft", folder), start("sft", folder)
    assert largest(together, alone) < (1e-6 if precision == "fp32" else 1e-4)
    assert torch.equal(together["model.norm.weight"], before["model.norm.weight"]), "frozen weights are not rounded"
    assert torch.equal(together["model.embed_tokens.weight"], before["model.embed_tokens.weight"])


@pytest.mark.parametrize("sharding", OFFLOADED if ALL else OFFLOADED_IN_CI)
def test_moments_on_the_cpu_change_nothing(sharding: str, folder: Path) -> None:
    two = Cell(sharding, 2, offload=True)
    run(two, folder, ("sft",))
    assert largest(weights(two, "sft", folder), weights(Cell("none", 1), "sft", folder)) < 1e-6
    resumes_to_the_same_bits(two, "sft", folder)
