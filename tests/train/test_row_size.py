"""The longest row that fits: by a device of which it is known on paper, in a run, and after it was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.samples import make_stage
from tests.train.test_step import Toy
from tulu.config.job import Job
from tulu.config.plan import LONGEST_ROW
from tulu.config.schema import Recipe, Sft
from tulu.config.shortage import telling_shortage
from tulu.errors import MemoryShortage
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.stages import sft
from tulu.train.open import StageRun
from tulu.train.optimizer import Learner
from tulu.train.row_size import longest_row, probe_row
from tulu.train.run import Run


class Device:
    """A device on which a row of T tokens takes `fixed` + `each` · T bytes, and that has so many."""

    def __init__(self, size: float, fixed: float = 1000.0, each: float = 10.0) -> None:
        self.size, self.fixed, self.each = size, fixed, each
        self.rows: list[int] = []
        self.most = 0.0

    def row(self, batch: Batch) -> None:
        self.rows.append(batch.n_tokens)
        needed = self.fixed + self.each * batch.n_tokens
        if needed > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        self.most = max(self.most, needed)

    def available(self) -> float:
        return self.size

    def forget_peak(self) -> None:
        self.most = 0.0

    def peak(self) -> float:
        return self.most


def measured(device: Device, **fields: Any) -> tuple[int, Learner]:
    """What is found for a model of 12 float32 weights, whose moments take 96 bytes."""
    stage = make_stage(**fields)
    module = nn.Linear(4, 3, bias=False)
    learner = Learner(Toy(module, module), stage, Parallel(stage))  # type: ignore[arg-type]

    def forward(batch: Batch) -> Tensor:
        device.row(batch)
        return module(torch.rand(2, 4)).sum()

    return longest_row(learner, stage, forward, device), learner


def test_the_longest_row_that_fits_by_hand() -> None:
    device = Device(500_000.0)
    # 0.92 · 500,000 bytes, less 1,000 and the 96 of the moments, hold 45,890 tokens of 10 bytes: 358 times 128.
    assert measured(device)[0] == 358 * 128
    assert device.rows == [4096, 8192]
    assert measured(Device(500_000.0, fixed=201_000.0))[0] == 202 * 128
    assert measured(Device(500_000.0, each=20.0))[0] == 179 * 128
    assert measured(Device(1e9))[0] == LONGEST_ROW


def test_moments_on_the_cpu_need_no_room() -> None:
    # Room for 10,240 tokens but for 96 bytes.
    size = (1000 + 10 * 10_240) / 0.92 + 1e-3
    assert measured(Device(size))[0] == 10_112
    assert measured(Device(size), offload_optimizer=True)[0] == 10_240


def test_a_longest_document_must_fit() -> None:
    device = Device(150_000.0)
    assert measured(device, max_length=12_000)[0] == 106 * 128
    assert device.rows == [6000, 12_000]
    with pytest.raises(torch.OutOfMemoryError):
        measured(Device(150_000.0), max_length=16_000)


def test_measuring_leaves_no_trace() -> None:
    torch.manual_seed(7)
    _, learner = measured(Device(500_000.0))
    found = torch.rand(3)
    torch.manual_seed(7)
    nn.Linear(4, 3, bias=False)
    # Training itself begins with the random states of its seed.
    torch.manual_seed(make_stage().seed)
    assert torch.equal(found, torch.rand(3)), "the rows that were measured drew nothing"
    assert all(parameter.grad is None for parameter in learner.model.module.parameters())
    assert not learner.optimizer.state


def test_the_row_holds_documents_of_every_length_that_there_is() -> None:
    row = probe_row(1000, 300)
    assert [segment.length for segment in row.completions] == [300, 300, 300, 100]
    # Nothing predicts the first token of a document.
    assert (row.n_tokens, row.n_trained) == (1000, 996)


def test_several_processes_take_what_fits_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parallel, "largest", lambda self, number: max(number, -1024))
    assert measured(Device(500_000.0))[0] == 1024


# -- in a run -------------------------------------------------------------------------------------------------------


def write_chats(folder: Path) -> None:
    chats = [[{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"answer {i} " * 3}] for i in range(8)]
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))


def job_of(folder: Path, model: Path, **fields: Any) -> Job:
    section = make_stage(Sft, **{"data": str(folder / "chats.jsonl"), "steps": 2, "batch": 4, "save_every": 1, **fields})
    return Job(Recipe(name="x", template="tulu", sft=section), "sft", folder / "runs" / "x" / "sft", str(model))


def test_a_run_measures_once_and_a_resumed_one_takes_the_same(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chats(tmp_path)
    job = job_of(tmp_path, tiny_model())
    device = Device(500_000.0)
    logps = Policy.logps
    seen: list[Any] = []

    def counted(policy: Policy, batch: Batch, temperature: float = 1.0) -> Tensor:
        if batch.id_C[0] == "probe":
            device.row(batch)
        return logps(policy, batch, temperature)

    def stop(self: Run, last: bool, **extra: Any) -> None:
        seen.append(self.section.row_tokens)
        seen.append(self.section.micro_batch)
        self.save(self.step, **extra)
        raise KeyboardInterrupt

    monkeypatch.setattr(Policy, "logps", counted)
    monkeypatch.setattr(StageRun, "device_memory", lambda self: device)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(Run, "end_step", stop)
        with pytest.raises(KeyboardInterrupt):
            sft.run(job)
    assert device.rows == [4096, 8192]
    manifest = json.loads((job.folder / "manifest.json").read_text())
    assert manifest["settled"] == {"row_tokens": seen[0], "micro_batch": 8}
    device.size = 300_000.0
    sft.run(job)
    assert device.rows == [4096, 8192], "it is not measured again"
    assert json.loads((job.folder / "manifest.json").read_text())["settled"] == manifest["settled"]


def test_on_a_cpu_auto_is_a_number(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    write_chats(tmp_path)
    found = []
    for name, fields in (("auto", {}), ("number", {"row_tokens": 8192})):
        job = job_of(tmp_path, tiny_model(), **fields)
        job = Job(job.recipe, "sft", tmp_path / name / "x" / "sft", job.start)
        found.append((sft.run(job) / "model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_run_goes_on_with_less_memory(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Where memory ran out, the message's cure is taken without --fresh."""
    write_chats(tmp_path)

    def end(self: Run, last: bool, **extra: Any) -> None:
        self.save(self.step, **extra)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    job = job_of(tmp_path, tiny_model())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "end_step", end)
        with pytest.raises(MemoryShortage, match=r"sft\.offload_optimizer=true"), telling_shortage(job):
            sft.run(job)
    changed = job_of(tmp_path, tiny_model(), row_tokens=600, micro_batch=2, offload_optimizer=True, gradient_checkpointing=True)
    folder = sft.run(changed)
    steps = [json.loads(line)["step"] for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2], "the first step was not done again"
    assert "row_tokens: 600" in (folder.parent / "recipe.yaml").read_text()
