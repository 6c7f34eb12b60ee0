"""Moments in the memory of the CPU: the same numbers, bit for bit, and a checkpoint that either way of training reads."""

import pytest
import torch
from torch import Tensor, nn

from tests.samples import make_stage
from tests.train.test_step import Toy
from tulu.model.parallel import Parallel
from tulu.train.offloaded import OffloadedAdamW
from tulu.train.optimizer import Learner


def trained(kind: type[torch.optim.AdamW], steps: int, resume: bool = False) -> tuple[list[Tensor], torch.optim.AdamW]:
    """Weights after some steps on random gradients, of which one weight has none; half-way the state may be written and read."""

    def made(weights: list[Tensor]) -> torch.optim.AdamW:
        return kind(weights, lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, fused=True)

    torch.manual_seed(0)
    weights = [torch.randn(7, 5), torch.randn(3), torch.randn(2)]
    optimizer = made(weights)
    for step in range(steps):
        for weight in weights[:2]:
            weight.grad = torch.randn(weight.shape)
        optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
        optimizer.step()
        if resume and step == steps // 2:
            state = optimizer.state_dict()
            optimizer = made(weights)
            optimizer.load_state_dict(state)
    return weights, optimizer


@pytest.mark.parametrize("resume", [False, True])
def test_offloading_changes_no_bit(resume: bool) -> None:
    expected, _ = trained(torch.optim.AdamW, 6)
    found, optimizer = trained(OffloadedAdamW, 6, resume)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert [len(optimizer.state[weight]) for weight in found] == [3, 3, 0], "what has no gradient has no moments"


def test_the_state_is_that_of_adamw() -> None:
    """A checkpoint of one is read by the other."""
    whole, offloaded = (trained(kind, 3)[1] for kind in (torch.optim.AdamW, OffloadedAdamW))
    one, other = whole.state_dict(), offloaded.state_dict()
    assert one["state"].keys() == other["state"].keys()
    for place, state in one["state"].items():
        assert all(torch.equal(value, other["state"][place][name]) for name, value in state.items())
    whole.load_state_dict(other)
    offloaded.load_state_dict(one)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recipe_asks_for_it(precision: str) -> None:
    """Behind bf16 the masters are stepped, wherever their moments lie."""
    weights = []
    for offload in (False, True):
        torch.manual_seed(0)
        module = nn.Linear(4, 3)
        stage = make_stage(precision=precision, offload_optimizer=offload, clip_norm=1.0)
        parallel = Parallel(stage)
        learner = Learner(Toy(module, module), stage, parallel)  # type: ignore[arg-type]
        assert isinstance(learner.optimizer, OffloadedAdamW) == offload
        for _ in range(3):
            parallel.backward(module(torch.ones(2, 4, dtype=module.weight.dtype)).float().square().sum(), last=True)
            parallel.finish_step(torch.zeros(1))
        weights.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
