"""Weights of 16 bits and their float32 masters, from one step to what is saved; and the scale of a loss in float16."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.samples import make_group, make_stage
from tulu.config.schema import Lora
from tulu.losses import sft_loss
from tulu.model.batch import pack_row
from tulu.model.gathering import whole_values
from tulu.model.masters import LossScale, Masters
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step


def learner_in(precision: str, folder: Path, **fields: Any) -> tuple[Policy, Learner]:
    stage = make_stage(precision=precision, **fields)
    policy = Policy.load(folder, lora=stage.lora)
    return policy, Learner(policy, stage, Parallel(stage))


def train(policy: Policy, learner: Learner, steps: int = 1) -> list[dict[str, float]]:
    batches = [pack_row([make_group(seed, 4, [8])]) for seed in range(4)]
    return [step(learner, batches, lambda batch: sft_loss(policy.logps(batch)), count_tokens) for _ in range(steps)]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_digest_of_what_trains_is_that_of_what_was_loaded(precision: str, tiny_model: Callable[..., Path]) -> None:
    """The folder holds float32 weights, which 16 bits do not hold. Frozen ones under adapters count, too."""
    for lora in (None, Lora(rank=2, alpha=4)):
        policy = Policy.load(tiny_model("qwen3"), lora=lora)
        before = policy.digest()
        Learner(policy, make_stage(precision=precision, lora=lora), Parallel(make_stage(precision=precision)))
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        assert {parameter.dtype for parameter in policy.module.parameters()} == {dtype}
        assert policy.digest() == before


def test_no_product_of_a_step_in_bf16_is_in_float32_but_what_must_be(tiny_model: Callable[..., Path]) -> None:
    """What each layer hands on is bf16, although nothing is under autocast; log-probs and their gradient's start are float32."""
    policy, _ = learner_in("bf16", tiny_model("olmo2"))
    seen: dict[str, set[torch.dtype]] = {}

    def look(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            tensor = output[0] if isinstance(output, tuple) else output
            if isinstance(tensor, Tensor):
                seen.setdefault(name, set()).add(tensor.dtype)

        return hook

    for name, module in policy.model.model.named_modules():
        if "rotary" not in name and name:
            module.register_forward_hook(look(name))
    logps_N = policy.logps(pack_row([make_group(0, 4, [8])]))
    assert logps_N.dtype == torch.float32
    assert seen
    assert {name: dtypes for name, dtypes in seen.items() if dtypes != {torch.bfloat16}} == {}
    assert not torch.is_autocast_enabled("cpu")


def test_updates_too_small_for_16_bits_are_not_lost(tiny_model: Callable[..., Path]) -> None:
    """A bf16 weight near 0.15 moves in steps of 0.001; the learning rate here is a hundredth of that."""
    policy, learner = learner_in("bf16", tiny_model("qwen3"), learning_rate=1e-5)
    weight = policy.model.lm_head.weight
    before = whole_values(weight).clone()
    train(policy, learner, steps=3)
    moved = (whole_values(weight) - before).abs()
    assert 1e-5 < moved.max() < 4e-5
    assert torch.equal(weight.detach(), whole_values(weight).bfloat16()), "what computes is the master, rounded"


def test_gradients_are_added_up_in_float32() -> None:
    """256 + 1 is 256 in bf16, so 64 gradients of 1 behind one of 256 would be lost."""
    module = nn.Linear(1, 1, bias=False)
    masters = Masters(module, module.parameters(), torch.bfloat16)
    for scale in [256.0, *([1.0] * 64)]:
        module(torch.full((1, 1), scale, dtype=torch.bfloat16)).sum().backward()
    (gradient,) = [master.grad for master in masters]
    assert gradient is not None
    assert gradient.item() == 320.0
    assert module.weight.grad is None, "a gradient of 16 bits is freed as soon as it is added"


def test_buffers_and_what_transformers_keeps_in_float32_stay(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("qwen3"))
    policy.model._keep_in_fp32_modules_strict = {"q_norm"}
    policy.model.register_buffer("counts", torch.ones(2))
    Learner(policy, make_stage(), Parallel(make_stage(precision="bf16")))
    kept = {name.split(".")[-2] for name, p in policy.model.named_parameters() if p.dtype == torch.float32}
    assert kept == {"q_norm"}
    assert {buffer.dtype for buffer in policy.model.buffers()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_train_as_float32_does(precision: str, tiny_model: Callable[..., Path]) -> None:
    """Five steps end where float32 ends but for a small part of the way; the loss falls alike."""
    ends: dict[str, dict[str, Tensor]] = {}
    losses: dict[str, float] = {}
    for each in ("fp32", precision):
        # Not Adam's: the sign of a gradient near zero is noise, and would be amplified.
        policy, learner = learner_in(each, tiny_model("qwen3"), adam_epsilon=1e-2)
        start = {name: tensor.clone() for name, tensor in policy.weights()}
        losses[each] = train(policy, learner, steps=5)[-1]["loss"]
        ends[each] = {name: tensor.clone() - start[name] for name, tensor in policy.weights()}
    way = torch.cat([tensor.flatten() for tensor in ends["fp32"].values()])
    apart = torch.cat([tensor.flatten() for tensor in ends[precision].values()]) - way
    assert apart.norm() < (0.05 if precision == "bf16" else 0.01) * way.norm()
    assert losses[precision] == pytest.approx(losses["fp32"], rel=0.01)


def test_float16_passes_over_a_step_that_overflows_and_tries_a_smaller_scale(tiny_model: Callable[..., Path]) -> None:
    policy, learner = learner_in("fp16", tiny_model("qwen3"))
    own = learner.parallel._own
    own.scale.factor = 2.0**40
    before = policy.digest()
    metrics = train(policy, learner)[0]
    assert policy.digest() == before
    assert metrics["skipped_steps"] == 1.0
    assert own.scale.factor == 2.0**39
    own.scale.factor = 2.0**10
    assert train(policy, learner)[0]["skipped_steps"] == 1.0, "they are counted over the run"
    assert policy.digest() != before


def test_a_scale_grows_after_many_good_steps() -> None:
    scale = LossScale(torch.float16)
    for _ in range(LossScale.GROWTH_STEPS):
        scale.update(True)
    assert scale.factor == 2.0**17
    scale.update(False)
    again = LossScale(torch.float16)
    again.load(scale.state())
    assert (again.factor, again.good_steps, again.skipped) == (2.0**16, 0, 1)
    other = LossScale(torch.bfloat16)
    other.update(False)
    assert (other.factor, other.skipped) == (1.0, 0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_checkpoint_holds_masters_moments_and_scale(precision: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    policy, learner = learner_in(precision, tiny_model("qwen3"))
    train(policy, learner, steps=2)
    learner.parallel.save(tmp_path)
    train(policy, learner, steps=2)
    again, resumed = learner_in(precision, tiny_model("qwen3"))
    resumed.parallel.load(tmp_path)
    train(again, resumed, steps=2)
    assert again.digest() == policy.digest()
    assert resumed.parallel._own.scale.state() == learner.parallel._own.scale.state()
