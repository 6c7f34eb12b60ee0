"""The plan's arithmetic, by numbers that can be checked on paper."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.config.plan import Size, batch_equation, count_rows, flops_per_token, memory, model_size, optimizer_steps
from tulu.config.schema import Rlvr, Sft, Source

SFT = Sft(data=(Source(name="a", fraction=1.0),), max_length=64, batch=96, epochs=1, learning_rate=1e-4)
RLVR = Rlvr(
    data=SFT.data,
    prompts=12,
    samples=8,
    batch=96,
    minibatches=2,
    steps=5,
    learning_rate=1e-6,
    max_prompt=32,
    max_tokens=32,
    max_length=64,
)


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


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "olmoe", "qwen3", "llama"])
def test_parameters_are_those_of_the_model(tiny_model: Callable[..., Path], family: str) -> None:
    from transformers import AutoModelForCausalLM

    # Wide enough that the norms, which the count leaves out, are small.
    folder = tiny_model(family, hidden_size=128, intermediate_size=256, **({"head_dim": 32} if family == "qwen3" else {}))
    size = model_size(str(folder))
    assert size is not None
    assert size.parameters == pytest.approx(AutoModelForCausalLM.from_pretrained(folder).num_parameters(), rel=0.005)
    assert (size.active < size.parameters) == (family == "olmoe")


def test_a_hub_name_is_unknown_offline() -> None:
    assert model_size("owner/never-downloaded") is None
    assert model_size(None) is None
    assert model_size(None, {"model_type": "gpt2", "n_embd": 8}) is None


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


def test_flops_of_a_token() -> None:
    size = Size(1000, 500)
    assert flops_per_token(SFT, size) == 6 * 500
    assert flops_per_token(SFT.model_copy(update={"gradient_checkpointing": True}), size) == 8 * 500
    assert flops_per_token(SFT.model_copy(update={"gradient_checkpointing": "selective"}), size) == 7 * 500
    assert flops_per_token(RLVR.model_copy(update={"beta": 0.1, "updates": 4}), size) == (4 * 6 + 2 + 2) * 500


def test_rows_and_steps(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    plain.write_text("{}\n\n{}\n{}\n")
    with gzip.open(zipped, "wb") as file:
        file.write(b"{}\n{}\n")
    sources = [Source(name=str(plain), fraction=2.0), Source(name=str(zipped), fraction=0.5), Source(name="x/y", count=10)]
    assert count_rows(sources) == 2 * 3 + 1 + 10
    assert count_rows([*sources, Source(name="x/z", fraction=1.0)]) is None
    assert count_rows([Source(name="sums:held_out", fraction=1.0)]) == 500
    assert optimizer_steps(SFT, 193) == 3, "the last, smaller step counts"
    assert optimizer_steps(SFT, None) is None
    assert optimizer_steps(RLVR, None) == 5
    assert optimizer_steps(RLVR.model_copy(update={"steps": None, "epochs": 2.0}), 60) == 10, "12 prompts a step"
