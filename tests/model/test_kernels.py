"""Kernels that stand in for a model's own code: right ones are kept, wrong and slow ones are not."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model.architectures import make
from tests.samples import gradients, largest_difference, make_group
from tulu.config.schema import Lora
from tulu.model import kernel_choice, kernels
from tulu.model.batch import pack_row
from tulu.model.kernel_choice import adopt_kernels
from tulu.model.kernel_places import places_of
from tulu.model.kernels import Kernels
from tulu.model.policy import Policy
from tulu.model.private_state import rotary_of, set_rotary
from tulu.model.trunk import Trunk

CPU = torch.device("cpu")
BATCH = pack_row([make_group(0, 9, [7, 5]), make_group(1, 4, [6])])
CALLS: list[str] = []


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        CALLS.append(function.__name__)
        return function(*arguments)

    return call


GOOD = Kernels(
    "Good",
    "cpu",
    counted(kernels.rms_norm),
    (counted(kernels.silu_gate), counted(kernels.gelu_gate)),
    counted(kernels.rotary),
)
"""The definitions, counted."""


def own_takes_a_second(function: Callable[..., Any], arguments: Sequence[Tensor]) -> float:
    """The model's own code takes one second, every kernel half of one."""
    return 1.0 if getattr(function, "__name__", "") == "own" else 0.5


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows are short, and what is put into the files of transformers is taken out again."""
    monkeypatch.setattr(kernel_choice, "TIMED_TOKENS", 1)
    monkeypatch.setattr(kernel_choice, "COMPARED_TOKENS", 30)
    from transformers.models.llama import modeling_llama
    from transformers.models.olmo2 import modeling_olmo2
    from transformers.models.qwen3 import modeling_qwen3

    files = [module.__name__ for module in (modeling_llama, modeling_olmo2, modeling_qwen3)]
    before = {file: rotary_of(file) for file in files}
    CALLS.clear()
    yield
    kernel_choice._measured.clear()
    for file, function in before.items():
        set_rotary(file, function)


def adopt(policy: Policy, *sources: Kernels, clock: Any = own_takes_a_second) -> None:
    adopt_kernels(policy.module.trunk, sources, clock)
    CALLS.clear()


def results(policy: Policy) -> tuple[Tensor, dict[str, Tensor]]:
    policy.module.zero_grad()
    logps_N = policy.logps(BATCH)
    (logps_N * torch.linspace(-1, 2, len(logps_N))).sum().backward()
    return logps_N.detach(), gradients(policy.model)


def replaced(policy: Policy) -> set[str]:
    """The classes of modules whose forward method is not their own."""
    return {type(module).__name__ for module in policy.model.modules() if "forward" in vars(module)}


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "qwen3", "llama"])
def test_right_kernels_are_put_in_everywhere_and_change_nothing(
    family: str, tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    plain, policy = Policy.load(tiny_model(family)), Policy.load(tiny_model(family))
    expected = results(plain)
    with caplog.at_level(logging.INFO, "tulu"):
        adopt(policy, GOOD)
    found = results(policy)
    assert (found[0] - expected[0]).abs().max() < 1e-5
    assert largest_difference(found[1], expected[1]) < 1e-4
    layers = policy.model.config.num_hidden_layers
    assert CALLS.count("silu_gate") == layers
    assert CALLS.count("rotary") == layers
    assert CALLS.count("rms_norm") == layers * (2 if family == "llama" else 4) + 1, "norms of queries and keys too"
    name = {"olmo2": "Olmo2", "olmo3": "Olmo3", "qwen3": "Qwen3", "llama": "Llama"}[family]
    parts = f"{name}MLP by Good, {name}RMSNorm by Good, apply_rotary_pos_emb by Good"
    assert caplog.messages == [f"kernels of {name}ForCausalLM: {parts}"]


def test_gemmas_norms_and_gates_are_told_from_llamas() -> None:
    """Gemma adds one to the weight of its norms, multiplies before it rounds, and has another activation."""
    model = make("soft cap and windows")
    trunk = Trunk(model)
    trunk.adopt_segments()
    chosen = {place.name: kernel_choice.fastest(place, (GOOD,), CPU, own_takes_a_second) for place in places_of(trunk.model)}
    norm, gate = chosen["Gemma2RMSNorm"], chosen["Gemma2MLP"]
    assert norm is not None
    version: Any = norm[1]
    assert version.args[2:] == (1.0, "gemma")
    assert gate == (GOOD, GOOD.gates[1])
    llama = next(place for place in places_of(make("YaRN").model) if place.name == "LlamaRMSNorm")
    found = kernel_choice.fastest(llama, (GOOD,), CPU, own_takes_a_second)
    assert found is not None
    version = found[1]
    assert version.args[2:] == (0.0, "llama")


def test_only_the_version_that_the_definitions_show_is_tried(tiny_model: Callable[..., Path]) -> None:
    """A kernel is compiled for each version that is tried, which takes seconds on a GPU."""
    tried = set()

    def norm(x: Tensor, weight: Tensor, epsilon: float, offset: float, casting: str) -> Tensor:
        tried.add((offset, casting))
        return kernels.rms_norm(x, weight, epsilon, offset, casting)

    adopt(Policy.load(tiny_model("llama")), replace(GOOD, rms_norm=norm))
    assert tried == {(0.0, "llama")}


def test_a_gate_is_timed_at_its_own_width(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama"))
    gate = next(place for place in places_of(policy.module.trunk.model) if place.name == "LlamaMLP")
    assert [tensor.shape for tensor in gate.arguments(3, CPU)] == [(1, 3, policy.model.config.intermediate_size)] * 2


def test_adapters_checkpointing_and_frozen_half_precision(tiny_model: Callable[..., Path]) -> None:
    choices: list[Any] = [{"lora": Lora(rank=2, alpha=4)}, {"gradient_checkpointing": "selective"}]
    for options in choices:
        plain, policy = (Policy.load(tiny_model("llama"), **options) for _ in range(2))
        expected = results(plain)
        adopt(policy, GOOD)
        found = results(policy)
        assert "silu_gate" in CALLS
        assert (found[0] - expected[0]).abs().max() < 1e-5
        assert largest_difference(found[1], expected[1]) < 1e-4
    frozen, plain = (Policy.load(tiny_model("llama"), trainable=False, precision="bf16") for _ in range(2))
    with torch.no_grad():
        expected_N = plain.logps(BATCH)
        adopt(frozen, GOOD)
        assert (frozen.logps(BATCH) - expected_N).abs().mean() < 0.05
    assert "rms_norm" in CALLS


def test_norms_of_another_dtype_than_their_weights_are_the_models_own(tiny_model: Callable[..., Path]) -> None:
    """A norm kept in float32 returns float32, which a kernel would round."""
    policy = Policy.load(tiny_model("llama"))
    adopt(policy, GOOD)
    norm: Any = policy.model.model.norm
    assert norm(torch.ones(1, 2, 32, dtype=torch.bfloat16)).dtype == torch.float32
    assert CALLS == []
    norm(torch.ones(1, 2, 32))
    assert CALLS == ["rms_norm"]


def half_gradient(x: Tensor, *others: Any) -> Any:
    return kernels.rms_norm((x + x.detach()) / 2, *others)


def no_mean(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
    return x * weight


def unavailable(*arguments: Any) -> Any:
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.mark.parametrize("norm", [half_gradient, no_mean, unavailable])
def test_a_wrong_kernel_is_not_put_in(norm: Any, tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama"))
    adopt(policy, replace(GOOD, name="Wrong", rms_norm=norm))
    assert replaced(policy) == {"LlamaMLP"}


def test_the_next_source_takes_the_place_of_a_wrong_one(
    tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy.load(tiny_model("llama"))
    wrong = replace(GOOD, name="Wrong", rms_norm=no_mean)
    with caplog.at_level(logging.INFO, "tulu"):
        adopt(policy, wrong, replace(GOOD, name="Next"))
    assert "LlamaMLP by Wrong, LlamaRMSNorm by Next, apply_rotary_pos_emb by Wrong" in caplog.messages[-1]


def test_a_slow_kernel_is_not_put_in(tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy.load(tiny_model("llama"))
    with caplog.at_level(logging.INFO, "tulu"):
        adopt(policy, GOOD, clock=lambda function, arguments: 1.0)
    assert replaced(policy) == set()
    assert caplog.messages == ["kernels of LlamaForCausalLM: its own code alone"]


def test_a_feed_forward_layer_of_another_form_gets_its_own_code_back(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its parts have the usual names, but it adds its input: only the whole model tells."""
    from transformers.models.llama.modeling_llama import LlamaMLP

    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, x: forward(self, x) + x)
    plain, policy = Policy.load(tiny_model("llama")), Policy.load(tiny_model("llama"))
    expected = results(plain)
    adopt(policy, GOOD)
    assert replaced(policy) == {"LlamaRMSNorm"}
    assert any("keeps its own LlamaMLP, that of Good is not exact" in message for message in caplog.messages)
    found = results(policy)
    assert "silu_gate" not in CALLS
    assert (found[0] - expected[0]).abs().max() < 1e-5


def test_another_rotary_embedding_is_the_models_own(tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that turns neighbours against each other, as GPT-J's does."""
    from transformers.models.llama import modeling_llama

    def interleaved(x: Tensor) -> Tensor:
        return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)

    monkeypatch.setattr(modeling_llama, "rotate_half", interleaved)
    policy = Policy.load(tiny_model("llama"))
    before = rotary_of(modeling_llama.__name__)
    adopt(policy, GOOD)
    assert rotary_of(modeling_llama.__name__) is before


def test_code_that_takes_other_arguments_is_left_alone(tiny_model: Callable[..., Path]) -> None:
    from transformers.models.llama import modeling_llama

    own = rotary_of(modeling_llama.__name__)
    policy = Policy.load(tiny_model("llama"))

    def with_frequencies(q: Tensor, k: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError

    set_rotary(modeling_llama.__name__, with_frequencies)
    rotary = next(place for place in places_of(policy.module.trunk.model) if place.name == "with_frequencies")
    assert kernel_choice.fastest(rotary, (GOOD,), CPU, kernel_choice.seconds) is None
    set_rotary(modeling_llama.__name__, own)


def test_partial_and_unusual_calls_of_the_rotary_embedding_are_the_models_own(tiny_model: Callable[..., Path]) -> None:
    from transformers.models.llama import modeling_llama

    own = rotary_of(modeling_llama.__name__)
    adopt(Policy.load(tiny_model("llama")), GOOD)
    turn = rotary_of(modeling_llama.__name__)
    assert turn is not own
    query = torch.randn(1, 2, 3, 8)
    angles = torch.randn(1, 3, 8)
    assert torch.equal(turn(query, query, angles, angles)[0], own(query, query, angles, angles)[0])
    assert CALLS == ["rotary"]
    late = query.transpose(1, 2)
    assert torch.equal(turn(late, late, angles, angles, unsqueeze_dim=2)[0], own(late, late, angles, angles, unsqueeze_dim=2)[0])
    assert CALLS == ["rotary"]
    # A second model replaces the kernel by its own choice, and wraps nothing twice.
    adopt(Policy.load(tiny_model("llama", seed=1)), replace(GOOD, name="Other"))
    assert rotary_of(modeling_llama.__name__).tulu_own is own


def test_a_kernel_is_measured_once_for_all_models_of_a_kind(tiny_model: Callable[..., Path]) -> None:
    asked = 0

    def clock(function: Any, arguments: Any) -> float:
        nonlocal asked
        asked += 1
        return own_takes_a_second(function, arguments)

    adopt(Policy.load(tiny_model("llama")), GOOD, clock=clock)
    assert asked == 6, "own code and one kernel, at three places"
    adopt(Policy.load(tiny_model("llama", seed=1)), GOOD, clock=clock)
    assert asked == 6
    held = [value for key in kernel_choice._measured for value in key if isinstance(value, nn.Module)]
    assert held == [], "no model is held in memory"


def test_a_cpu_has_no_kernels(tiny_model: Callable[..., Path]) -> None:
    assert kernels.installed(CPU) == ()
    policy = Policy.load(tiny_model("llama"))
    adopt_kernels(policy.module.trunk)
    assert replaced(policy) == set()


def test_a_kernel_for_another_device_leaves_this_one_alone(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama"))
    expected = results(Policy.load(tiny_model("llama")))
    adopt(policy, replace(GOOD, device="cuda"))
    assert torch.equal(results(policy)[0], expected[0])
    assert CALLS == []


def test_experts_keep_their_own_code_and_take_norms_and_rotary(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("olmoe"))
    adopt(policy, GOOD)
    results(policy)
    assert set(CALLS) == {"rms_norm", "rotary"}


def test_the_time_of_a_function_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def double(x: Tensor, y: Tensor) -> Tensor:
        seen.append(x)
        return 2 * x * y

    assert 0 < kernel_choice.seconds(double, [torch.ones(3), torch.ones(3)]) < 1
    assert len(seen) == 2 * kernel_choice.REPEATS
