"""The last layer at read positions only: the same numbers, fewer rows through its feed-forward."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.samples import gradients, largest_difference, make_group, stay_in_float64
from tulu.model.attention import layout
from tulu.model.batch import Batch, pack_row
from tulu.model.last_layer import ReadOnlyLastLayer
from tulu.model.policy import Policy

FAMILIES = ["olmo2", "olmo3", "olmoe", "qwen3", "llama"]


def prompts_and_answers() -> Batch:
    """Two prompts of 20 tokens that nobody reads but at their last one."""
    return pack_row([make_group(1, 20, [7, 5]), make_group(2, 20, [9])])


def rows_seen(module: torch.nn.Module) -> list[int]:
    """The lengths of the inputs that a module is given from now on, its hooks before ours done."""
    seen: list[int] = []
    module.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    return seen


def last_layer(policy: Policy) -> Any:
    layers: Any = policy.model.base_model.get_submodule("layers")
    return layers[-1]


@pytest.mark.parametrize("family", FAMILIES)
def test_only_read_positions_pass_the_last_layers_feed_forward(family: str, tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model(family))
    batch = prompts_and_answers()
    layers: Any = policy.model.base_model.get_submodule("layers")
    last, before = rows_seen(layers[-1].mlp), rows_seen(layers[-2].mlp)
    policy.logps(batch)
    assert last == [len(set(batch.read_N.tolist()))]
    assert last[0] <= 21
    assert before == [batch.n_tokens] == [61]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probs_and_gradients_are_those_of_the_whole_layer(
    family: str, checkpointing: bool, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    batch = prompts_and_answers()
    found = []
    for read_only in (True, False):
        if not read_only:
            monkeypatch.setattr("tulu.model.trunk.ReadOnlyLastLayer", lambda layer: None)
        policy = Policy.load(tiny_model(family), gradient_checkpointing=checkpointing)
        policy.module.double()
        if family == "olmoe":  # grouped_mm, the default, has no float64
            policy.model.set_experts_implementation("eager")
        logps_N = policy.logps(batch)
        (logps_N * torch.linspace(-1, 2, len(logps_N))).sum().backward()
        found.append((logps_N.detach(), gradients(policy.model)))
    (logps, grads), (whole_logps, whole_grads) = found
    assert (logps - whole_logps).abs().max() < 1e-12
    assert largest_difference(grads, whole_grads) < 1e-12


@torch.no_grad()
def test_a_plain_forward_pass_of_the_same_model_is_whole(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("olmo2"))
    policy.logps(prompts_and_answers())
    tokens = torch.arange(30)[None]
    policy.model.set_attn_implementation("sdpa")
    plain = AutoModelForCausalLM.from_pretrained(tiny_model("olmo2"), attn_implementation="sdpa")
    assert torch.equal(policy.model(input_ids=tokens).logits, plain(input_ids=tokens).logits)


@torch.no_grad()
def test_a_row_that_is_read_throughout_or_not_at_all_is_whole(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("olmo2"))
    seen = rows_seen(last_layer(policy).mlp)
    whole = pack_row([make_group(3, 0, [40], trained=1.0)])
    policy.logps(whole)
    unread = pack_row([make_group(4, 12, [1, 1])])
    policy.module.trunk._packed(unread, unread.read_N[:0])
    assert seen == [40, 14]


@torch.no_grad()
def test_a_layer_that_mixes_positions_in_its_feed_forward_is_found_out(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A feed-forward that looks at its neighbours gives other numbers on fewer rows: the hooks must go."""
    from transformers.models.olmo2.modeling_olmo2 import Olmo2MLP

    forward = Olmo2MLP.forward
    monkeypatch.setattr(Olmo2MLP, "forward", lambda self, x: forward(self, x - x.mean(1, keepdim=True)))
    monkeypatch.setattr("tulu.model.trunk.Trunk._fault", lambda *arguments: "")
    policy = Policy.load(tiny_model("olmo2"))
    seen = rows_seen(last_layer(policy).mlp)
    policy.logps(prompts_and_answers())
    assert seen == [61]


def test_hooks_go_when_they_are_removed(tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama"))
    layer = last_layer(policy)
    counted = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in layer.modules()]
    hooks = ReadOnlyLastLayer(layer)
    hooks.remove()
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in layer.modules()] == counted
    assert layout(prompts_and_answers()).read_R is None
