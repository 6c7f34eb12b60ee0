"""Whole weights: of a float32 master where there is one, and whole models beside a sharded one."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from tests.model.policies import lora_policy
from tulu.model.gathering import adapter_delta, forget_sharding, gathered, is_spread, set_whole, unsharded, whole, whole_values


def test_whole_weights_pass_through() -> None:
    layer = nn.Linear(2, 2)
    parameter = nn.Parameter(torch.ones(2))
    with gathered(layer), whole(parameter) as found:
        assert found is parameter
        layer(torch.ones(1, 2))
    assert not layer._forward_hooks
    assert not is_spread(layer)
    assert whole_values(parameter).data_ptr() == parameter.data_ptr(), "nothing is copied"


def test_a_parameter_that_is_a_rounded_copy_says_what_it_stands_for() -> None:
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.bfloat16))
    set_whole(parameter, lambda: torch.tensor([1.0001]))
    assert whole_values(parameter).item() == torch.tensor(1.0001).item()


def test_what_an_adapter_adds_is_computed_from_whole_values(tiny_model: Callable[..., Path]) -> None:
    policy = lora_policy(tiny_model("qwen3"))
    layer = policy.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    expected = layer.get_delta_weight("default")
    assert torch.equal(adapter_delta(layer, "default"), expected)
    exact = {parameter: parameter.detach().clone() for parameter in (a, b)}
    for parameter, values in exact.items():
        set_whole(parameter, values.clone)
        parameter.data = parameter.data.bfloat16()
    assert torch.equal(adapter_delta(layer, "default"), expected)
    assert a.dtype == torch.bfloat16, "the layer keeps its own weights"


def test_a_reward_model_loads_whole_while_the_policy_is_sharded() -> None:
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled

    settings = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    assert settings.is_zero3()
    assert is_deepspeed_zero3_enabled()
    with unsharded():
        assert not is_deepspeed_zero3_enabled()
    assert is_deepspeed_zero3_enabled()
    forget_sharding()
