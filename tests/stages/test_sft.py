"""The SFT stage: weights of the original's micro-batches, and a run from rows to a model folder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.samples import make_stage
from tulu.config.job import Job
from tulu.config.schema import Recipe, Sft
from tulu.model.parallel import Parallel
from tulu.stages import sft
from tulu.types import Completion, Group


def group(tokens: int) -> Group:
    return Group([0], (Completion([1] * tokens, [True] * tokens),))


@pytest.mark.parametrize(
    ("loss", "weights", "share"),
    [
        # Micro-batches of 2: tokens (4, 1), (2, 6), (3).
        ("sum", [1.0] * 5, [0.5, 0.5, 0.5, 0.5, 1.0]),
        ("micro_mean", [1 / 5, 1 / 5, 1 / 8, 1 / 8, 1 / 3], [0.5, 0.5, 0.5, 0.5, 1.0]),
    ],
)
def test_weights_of_the_originals_micro_batches(loss: str, weights: list[float], share: list[float]) -> None:
    stage = make_stage(Sft, loss=loss, loss_micro_batch=2)
    weighted = sft.weight_groups([group(n) for n in (4, 1, 2, 6, 3)], stage)
    assert [one.weight for one in weighted] == pytest.approx(weights)
    assert [one.share for one in weighted] == pytest.approx(share)
    # However they are packed, their shares add up to the three micro-batches.
    batches = [batch for part in (weighted[:3], weighted[3:]) for batch in sft.pack_weighted(part, stage)]
    assert sum(sft.count_micro_batches(batch) for batch in batches) == pytest.approx(3.0)
    assert sorted(weight for batch in batches for weight in batch.weight_C.tolist()) == pytest.approx(sorted(weights))


def job(folder: Path, model: Path, rows: list[dict[str, Any]], **fields: Any) -> Job:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {
        **{"data": str(file), "max_length": 128, "batch": 4, "micro_batch": 2, "steps": 4, "learning_rate": 3e-3},
        **{"precision": "fp32", "schedule": "constant"},
        **fields,
    }
    recipe = Recipe.model_validate({"name": "t", "model": str(model), "template": "tulu", "sft": section})
    return Job(recipe, "sft", folder / "runs" / "t" / "sft", str(model))


def chats(n: int) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"q{at}"}, {"role": "assistant", "content": "yes " * (1 + at % 3)}]}
        for at in range(n)
    ]


@pytest.mark.parametrize("options", [{}, {"lora": {"rank": 4, "alpha": 8}}, {"gradient_checkpointing": True, "loss": "sum"}])
def test_a_run_learns_and_saves_a_model(options: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    given = {"learning_rate": 3e-2} if "lora" in options else {}
    folder = sft.run(job(tmp_path, tiny_model("olmo2"), chats(12), steps=8, **options, **given))
    metrics = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == list(range(1, 9))
    assert metrics[-1]["nll"] < 0.7 * metrics[0]["nll"]
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert manifest["pinned"]["processes"] == 1
    saved, start = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, tiny_model("olmo2")))
    assert type(saved) is type(start)
    assert not torch.equal(saved.model.layers[0].mlp.up_proj.weight, start.model.layers[0].mlp.up_proj.weight)


def test_an_epoch_trains_every_row_once_and_says_which(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = sft.run(job(tmp_path, tiny_model("olmo2"), chats(10), steps=None, epochs=1))
    journal = [json.loads(line) for line in (folder.parent / "journal").read_text().splitlines()]
    rows = [row for line in journal if line["event"] == "trained" for row in line["rows"]]
    assert len(rows) == len(set(rows)) == 10
    assert {row.rsplit(":", 1)[1] for row in rows} == {str(line) for line in range(1, 11)}


@pytest.fixture
def float32_afterwards() -> Iterator[None]:
    """Accelerate's precision belongs to the process: other tests of this one, TRL's trainers among them, expect none."""
    yield
    Parallel(make_stage(precision="fp32"))


@pytest.mark.usefixtures("float32_afterwards")
def test_bfloat16_trains(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Also after a stage in float32: one process runs the stages of a recipe, each in its own precision."""
    losses = {}
    for precision in ("fp32", "bf16"):
        (tmp_path / precision).mkdir()
        folder = sft.run(job(tmp_path / precision, tiny_model("olmo2"), chats(8), precision=precision))
        losses[precision] = [json.loads(line)["loss"] for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
        assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.float32
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_a_finished_run_is_not_run_again(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    first = sft.run(job(tmp_path, tiny_model("olmo2"), chats(8)))
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert sft.run(job(tmp_path, tiny_model("olmo2"), chats(8))) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written
