"""Batch, memory and steps of a stage, by numbers that can be checked on paper."""

import pytest

from tests.config.plan_sections import RLVR, SFT
from tulu.config.parts import Lora, TeacherSettings, ValueModelSettings
from tulu.config.plan import GIB, LONGEST_ROW, batch_equation, longest_row, memory, optimizer_steps, units_of_step
from tulu.config.schema import Sft
from tulu.config.sizes import Size


@pytest.mark.parametrize(
    ("stage", "processes", "line"),
    [
        (SFT, 1, "global batch 96 = 1 process × micro-batch 8 × accumulation 12"),
        (SFT, 4, "global batch 96 = 4 processes × micro-batch 8 × accumulation 3"),
        (SFT.model_copy(update={"batch": 4}), 1, "global batch 4 = 1 process × micro-batch 4 × accumulation 1"),
        (RLVR, 2, "global batch 48 = 2 processes × micro-batch 8 × accumulation 3, 2 such minibatches a step"),
    ],
)
def test_the_batch_is_an_equation(stage: Sft, processes: int, line: str) -> None:
    assert batch_equation(stage, processes) == line


def test_memory_of_a_thousand_parameters() -> None:
    size = Size(1000, 1000, layers=2, hidden=10, kv=5, feed_forward=20)
    stage = SFT.model_copy(update={"precision": "fp32", "row_tokens": 3})
    block = 8 * 10 + 2 * 5 + 4 * 20
    whole = {"weights": 4000, "gradients": 4000, "moments": 8000, "activations": 4 * 3 * 2 * block}
    assert memory(stage, size, 4) == whole, "without sharding every process holds all"
    assert memory(stage.model_copy(update={"sharding": "zero2"}), size, 4) == {**whole, "gradients": 1000, "moments": 2000}
    for sharding in ("zero3", "fsdp2"):
        assert memory(stage.model_copy(update={"sharding": sharding}), size, 4)["weights"] == 1000
    checkpointed = memory(stage.model_copy(update={"gradient_checkpointing": True}), size, 1)
    assert checkpointed["activations"] == 4 * 3 * (2 * 10 + block)
    selective = memory(stage.model_copy(update={"gradient_checkpointing": "selective"}), size, 1)
    assert selective["activations"] == 4 * 3 * (2 * (3 * 10 + 5 + 20) + block)
    half = {"weights": 2000, "masters": 4000, "gradients": 4000, "moments": 8000, "activations": 2 * 3 * 2 * block}
    assert memory(stage.model_copy(update={"precision": "bf16"}), size, 1) == half
    zero1 = memory(stage.model_copy(update={"precision": "bf16", "sharding": "zero1"}), size, 4)
    assert zero1 == {**half, "masters": 1000, "moments": 2000}
    fsdp2 = memory(stage.model_copy(update={"precision": "fp16", "sharding": "fsdp2"}), size, 4)
    assert (fsdp2["weights"], "masters" in fsdp2) == (1000, False), "shards of the weights are the masters themselves"
    assert memory(RLVR.model_copy(update={"beta": 0.1}), size, 1)["reference"] == 2000
    assert "reference" not in memory(RLVR.model_copy(update={"beta": 0.1, "lora": Lora()}), size, 1), "the frozen weights are it"
    taught = RLVR.model_copy(update={"teacher": TeacherSettings(path="owner/teacher"), "sharding": "zero3"})
    assert memory(taught, size, 4)["teacher"] == 500
    assert memory(taught, size, 4, None, Size(5000, 5000))["teacher"] == 2500


def test_a_value_model_has_its_own_size() -> None:
    policy, value = (
        Size(1000, 1000, layers=2, hidden=10, kv=5, feed_forward=20),
        Size(100, 100, layers=1, hidden=4, kv=4, feed_forward=8),
    )
    stage = RLVR.model_copy(update={"value": ValueModelSettings(), "row_tokens": 3})
    alone = memory(RLVR.model_copy(update={"row_tokens": 3}), policy, 1)
    same, smaller = memory(stage, policy, 1), memory(stage, policy, 1, value)
    assert same == {part: 2 * amount for part, amount in alone.items()}, "of unknown size: as large as the policy"
    assert smaller["moments"] == 8 * 1100
    assert smaller["activations"] == alone["activations"] + 2 * 3 * (8 * 4 + 2 * 4 + 4 * 8)


def test_the_longest_row_fills_the_room_that_the_rest_leaves() -> None:
    size = Size(1e6, 1e6, layers=2, hidden=100, kv=100, feed_forward=400)
    stage = SFT.model_copy(update={"precision": "bf16"})
    a_token = 2 * 2 * (8 * 100 + 2 * 100 + 4 * 400)
    assert longest_row(stage, size, 1, 18e6 + 1000 * a_token) == 896, "1,000 tokens in units of 128"
    assert longest_row(stage, size, 1, 18e6 - 1) == 0
    assert longest_row(stage, size, 1, GIB * 1000) == LONGEST_ROW
    for room in (20e6, 30e6, 5e8):
        row = longest_row(stage, size, 1, room)
        assert sum(memory(stage.model_copy(update={"row_tokens": row}), size, 1).values()) <= room
        assert sum(memory(stage.model_copy(update={"row_tokens": row + 128}), size, 1).values()) > room


def test_steps() -> None:
    assert optimizer_steps(SFT, 193) == 3, "the last, smaller step counts"
    assert optimizer_steps(SFT, None) is None
    assert optimizer_steps(RLVR, None) == 5
    assert optimizer_steps(RLVR.model_copy(update={"steps": None, "epochs": 2.0}), 60) == 10, "12 prompts a step"


def test_a_batch_that_counts_tokens_has_as_many_steps_as_the_tokens_say() -> None:
    """193 rows of 100 tokens twice are 38,600 tokens: 10 steps of 4,096, the last one smaller."""
    stage = Sft.model_validate(
        {
            **SFT.model_dump(exclude={"batch", "batch_tokens", "steps", "epochs"}),
            "batch_tokens": 4096,
            "max_length": 1024,
            "epochs": 2.0,
        }
    )
    assert batch_equation(stage, 3) == "global batch 4,096 tokens, as many as 4 of max_length"
    assert optimizer_steps(stage, 193, 100.0) == 10
    assert units_of_step(stage, 100.0) == 40.96
    assert units_of_step(SFT, 100.0) == SFT.batch
