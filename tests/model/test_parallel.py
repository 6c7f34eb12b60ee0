"""Processes that train together: what they tell each other lies on their device, and torchrun connects them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests import forked
from tests.ranks.stages import Cell, recipe_of, train, write_inputs
from tests.samples import make_stage
from tulu.config.load import dump
from tulu.model.parallel import Parallel
from tulu.model.processes import Processes

LOCAL = {"prepare", "prepare_frozen", "backward", "clear", "share", "save", "load", "not_finite", "shards_weights", "skipped"}
"""What a process without sharding does by itself, or through a method below.

Sharding exchanges weights and gradients through torch and DeepSpeed, which keep them where they are.
"""


def calls(parallel: Parallel, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], Any]]:
    """One call of every method that tells other processes something, by its name."""
    number = torch.ones(3, device=parallel.device)
    return {
        "add_up": lambda: parallel.add_up(number),
        "add_up_all": lambda: parallel.add_up_all([number, number.clone()]),
        "most": lambda: parallel.most(number),
        "total": lambda: parallel.total(1.5),
        "largest": lambda: parallel.largest(2),
        "names_of_all": lambda: parallel.names_of_all(["nll"]),
        "level": lambda: list(parallel.level(["row"], "row")),
        "exchange": lambda: parallel.exchange("item"),
        "hand_out": lambda: parallel.hand_out(["mine", "theirs"]),
        "bring": lambda: parallel.bring("item"),
        "wait": parallel.wait,
        "finish_step": lambda: parallel.finish_step(torch.ones(3)),
    }


def test_whatever_is_exchanged_lies_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL takes nothing else. The device here is torch's "meta", whose tensors cannot be mistaken for those of the CPU."""
    parallel = Parallel(make_stage())
    parallel.world, parallel.device = 2, torch.device("meta")
    module = nn.Linear(2, 2, device="meta")
    _, optimizer = parallel.prepare(module, torch.optim.AdamW(module.parameters()))
    sent: list[Tensor] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, **_: sent.append(tensor))
    for name in ("all_gather_object", "scatter_object_list", "gather_object"):
        # Bytes of objects: torch itself puts them on the device that the connection takes.
        monkeypatch.setattr(f"torch.distributed.{name}", lambda *_, **__: sent.append(torch.ones(1, device="meta")))
    table = calls(parallel, module, optimizer)
    public = {name for kind in (Processes, Parallel) for name in vars(kind) if not name.startswith("_")}
    assert table.keys() | LOCAL == public, "a new method needs a call here"
    for name, call in table.items():
        sent.clear()
        # There is nothing to read in what comes back.
        with suppress(RuntimeError, NotImplementedError):
            call()
        assert sent, f"{name} told nobody"
        assert all(tensor.device == parallel.device for tensor in sent), name


def test_gradients_are_added_up_bucket_by_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = Parallel(make_stage())
    parallel.world = 2
    monkeypatch.setattr("tulu.model.processes.BUCKET", 5)
    sizes: list[int] = []

    def double(tensor: Tensor, **_: Any) -> None:
        sizes.append(tensor.numel())
        tensor.mul_(2)

    monkeypatch.setattr("torch.distributed.all_reduce", double)
    tensors = [torch.full((2, 2), 1.0), torch.full((3,), 2.0), torch.full((1,), 3.0)]
    parallel.add_up_all(tensors)
    assert sizes == [7, 1]
    assert [tensor.unique().tolist() for tensor in tensors] == [[2.0], [4.0], [6.0]]


def test_a_weight_that_no_process_used_keeps_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in one process. A weight that only the other process used gets a gradient here, too, or its optimizer would not step."""
    parallel = Parallel(make_stage())
    module = nn.ParameterList([torch.ones(1), torch.ones(1), torch.ones(1)])
    parallel.prepare(module, torch.optim.SGD(module.parameters(), lr=1.0))
    parallel.world = 2
    replies = iter([torch.tensor([1.0, 7.0]), torch.tensor([1, 1, 0]), torch.tensor([4.0, 3.0])])
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, **_: tensor.copy_(next(replies)))
    (2 * module[0]).sum().backward()
    (total, more), norm = parallel.finish_step(torch.tensor([0.5, 3.5]))
    assert more == 7.0
    assert (total, norm) == (1.0, 5.0)
    assert [weight.item() for weight in module] == [-3.0, -2.0, 1.0]


def test_one_process_does_not_shard() -> None:
    for sharding in ("zero3", "fsdp2"):
        parallel = Parallel(make_stage(sharding=sharding))
        assert (parallel.sharding, parallel.deepspeed, parallel.shards_weights) == ("none", False, False)
    assert (parallel.rank, parallel.world, parallel.is_main) == (0, 1, True)
    assert parallel.total(2.5) == 2.5
    assert parallel.largest(3) == 3
    assert parallel.share([1, 2, 3]) == [1, 2, 3]
    assert parallel.exchange("x") == ["x"]
    assert parallel.names_of_all({"b": 1, "a": 2}) == ["a", "b"]


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_not_taken(fault: str) -> None:
    parallel = Parallel(make_stage())
    module = nn.Linear(2, 1)
    parallel.prepare(module, torch.optim.AdamW(module.parameters()))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    parallel.backward(module(torch.ones(1, 2)).sum(), last=True)
    if fault == "gradient":
        assert module.weight.grad is not None
        module.weight.grad[0, 0] = torch.inf
    (total,), norm = parallel.finish_step(torch.tensor([torch.nan if fault == "loss" else 1.0]))
    assert not (torch.tensor([total, norm]).isfinite().all())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.weight.grad is None, "the next step begins without it"


def test_what_one_rank_meets_stops_both(tmp_path: Path) -> None:
    """A loss, gradient or weight that is not finite, and a damaged shard: both say the same, and none waits for the other."""
    forked.ranks("tests.model.ranks_not_finite", 2, tmp_path, folder=tmp_path, patience=240)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    damaged = one.pop("damaged")
    assert len(one) == 18
    for case, found in one.items():
        assert found["trained"], case
        assert not found["moved"], case
        assert found["not finite"] == ["linear.weight"], case
        said = "its loss is nan: row rank1:2" if case.endswith("loss") else "the norm of its gradients"
        assert said in found["message"], case
        assert case.endswith("loss") or "all its rows: rank0:1" in found["message"], case
    for sharding, message in damaged.items():
        file = "optimizer_1.bin" if sharding == "fsdp2" else "zero_pp_rank_1_mp_rank_00_optim_states.pt"
        assert f"{file} is not what was written" in message, sharding


def test_torchrun_connects_the_processes(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """The command as a user gives it. Every sharding with every kind of training is in tests/ranks/."""
    write_inputs(tmp_path)
    (tmp_path / "model").symlink_to(tiny_model("qwen3"))
    train(Cell("none", 1), tmp_path, ("sft",))
    (tmp_path / "two.yaml").write_text(dump(recipe_of(Cell("fsdp2", 2), "sft", tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tulu"]
    command = [*launcher, "sft", str(tmp_path / "two.yaml"), "--runs", str(tmp_path / "runs")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    folders = [tmp_path / "runs" / cell.name / "sft" for cell in (Cell("none", 1), Cell("fsdp2", 2))]
    alone, together = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert max(float((together[name] - alone[name]).abs().max()) for name in alone) < 1e-6
    one, two = (json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]) for folder in folders)
    for metric in ("loss", "gradient_norm", "tokens"):
        assert two[metric] == pytest.approx(one[metric], rel=1e-4, abs=1e-6), metric
