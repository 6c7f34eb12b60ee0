"""The policy's log-probs and gradients are transformers' own, one sequence at a time, whatever the packing; LoRA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.model.policies import FAMILIES, GROUPS, LORA, SHARING, lora_policy
from tests.samples import gradients, in_order, largest_difference, make_group, plain_logps, stay_in_float64
from tulu.errors import RecipeError
from tulu.model.batch import pack, pack_row
from tulu.model.load import load_tokenizer
from tulu.model.policy import Policy
from tulu.types import Group


@pytest.fixture(scope="module")
def policy(tiny_model: Callable[..., Path]) -> Callable[..., Policy]:
    """policy(family, float64) -> a fresh one."""

    def load(family: str, float64: bool = False) -> Policy:
        loaded = Policy.load(tiny_model(family))
        if float64:
            loaded.module.double()
        return loaded

    return load


def oracle(tiny_model: Callable[..., Path], family: str, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model(family), dtype=dtype, attn_implementation="sdpa")


@pytest.mark.parametrize("family", FAMILIES)
def test_which_families_share_their_prompt(family: str, policy: Callable[..., Policy]) -> None:
    assert policy(family).module.trunk.shares_prefix is (family in SHARING)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_log_probs_equal_plain_forward_passes(
    family: str, policy: Callable[..., Policy], tiny_model: Callable[..., Path]
) -> None:
    ours, plain = policy(family), oracle(tiny_model, family, torch.float32)
    expected = plain_logps(plain, GROUPS)
    for row_tokens in (30, 60, 1000):
        found = in_order(pack(GROUPS, row_tokens), ours.logps)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max().item() < 1e-5
    assert expected.std() > 0.5, "log-probs that hardly vary would hide a mistake"


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_plain_forward_passes(
    family: str, policy: Callable[..., Policy], tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    ours, plain = policy(family, float64=True), oracle(tiny_model, family, torch.float64)
    if family == "olmoe":  # grouped_mm, the default, has no float64
        for model in (ours.model, plain):
            model.set_experts_implementation("eager")
    weight = torch.linspace(-1, 2, len(plain_logps(plain, GROUPS)), dtype=torch.float64)
    (plain_logps(plain, GROUPS) * weight).sum().backward()
    (in_order(pack(GROUPS, 60), ours.logps) * weight).sum().backward()
    # Olmo Hybrid's recurrence keeps float32 inside.
    assert largest_difference(gradients(ours.model), gradients(plain)) < (1e-8 if family == "olmo_hybrid" else 1e-12)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
@torch.no_grad()
def test_temperature_and_entropy(temperature: float, policy: Callable[..., Policy], tiny_model: Callable[..., Path]) -> None:
    ours, plain = policy("olmo2"), oracle(tiny_model, "olmo2", torch.float32)
    group = make_group(5, 6, [9])
    batch = pack_row([group])
    logps_N, entropy_N = ours.logps_and_entropy(batch, temperature)
    assert (logps_N - plain_logps(plain, [group], temperature)).abs().max() < 1e-5
    logits_TV = plain(input_ids=batch.tokens_T[None]).logits[0] / temperature
    p_TV = torch.softmax(logits_TV, -1)
    expected = -(p_TV * p_TV.log()).sum(-1)[batch.read_N]
    assert (entropy_N - expected).abs().max() < 1e-5


def disturbed(group: Group) -> Group:
    """The same lengths and mask, every token another."""
    completions = tuple(type(c)([(token + 101) % 256 for token in c.tokens], c.trained) for c in group.completions)
    return Group([(token + 57) % 256 for token in group.prompt], completions, group.id)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_no_document_sees_its_neighbours(family: str, policy: Callable[..., Policy]) -> None:
    ours = policy(family)
    before_batch = pack_row(GROUPS)
    before = ours.logps(before_batch)
    owners = torch.tensor([g for g, group in enumerate(GROUPS) for _ in group.completions])[before_batch.owner_N]
    for changed in range(len(GROUPS)):
        after = ours.logps(pack_row([disturbed(group) if g == changed else group for g, group in enumerate(GROUPS)]))
        same = owners != changed
        assert_unmoved(family, after[same], before[same])
        assert (after[~same] - before[~same]).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_no_completion_sees_its_siblings(family: str, policy: Callable[..., Policy]) -> None:
    ours = policy(family)
    group = make_group(7, 10, [6, 9, 4, 12])
    batch = pack_row([group])
    before = ours.logps(batch)
    for changed in range(4):
        completions = list(group.completions)
        completions[changed] = disturbed(group).completions[changed]
        after = ours.logps(pack_row([Group(group.prompt, tuple(completions))]))
        assert_unmoved(family, after[batch.owner_N != changed], before[batch.owner_N != changed])


def assert_unmoved(family: str, after: Tensor, before: Tensor) -> None:
    """To the last bit, but for experts, whose products run over the tokens of all documents together."""
    if family == "olmoe":
        assert (after - before).abs().max().item() < 1e-6
    else:
        assert torch.equal(after, before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.no_grad()
def test_a_frozen_policy_in_either_precision(precision: str, tiny_model: Callable[..., Path]) -> None:
    frozen = Policy.load(tiny_model("olmo2"), precision=precision, trainable=False)
    assert frozen.module.trunk.shares_prefix
    assert not any(parameter.requires_grad for parameter in frozen.module.parameters())
    found = in_order(pack(GROUPS, 60), frozen.logps)
    assert found.dtype == torch.float32
    expected = plain_logps(oracle(tiny_model, "olmo2", torch.float32), GROUPS)
    # bfloat16 holds 8 bits: these large weights give logits of some tens, a bit of which is about 0.1.
    assert (found - expected).abs().mean() < (1e-5 if precision == "fp32" else 0.3)


@pytest.mark.parametrize("family", ["olmo2", "olmoe", "olmo_hybrid"])
def test_gradient_checkpointing_changes_no_gradient(family: str, tiny_model: Callable[..., Path]) -> None:
    found = []
    for checkpointing in (False, True):
        ours = Policy.load(tiny_model(family), gradient_checkpointing=checkpointing)
        ours.module.train()
        in_order(pack(GROUPS, 60), ours.logps).sum().backward()
        found.append(gradients(ours.model))
    assert largest_difference(found[1], found[0]) < 1e-6


def test_lora_starts_as_the_model_and_trains_adapters_alone(tiny_model: Callable[..., Path]) -> None:
    ours, plain = Policy.load(tiny_model("qwen3"), lora=LORA), Policy.load(tiny_model("qwen3"))
    batch = pack_row(GROUPS)
    assert torch.equal(ours.logps(batch), plain.logps(batch))
    trained = {name for name, parameter in ours.module.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert ours.digest() == plain.digest()


def test_lora_gradients_equal_those_of_plain_forward_passes(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    ours, plain = lora_policy(tiny_model("llama")), lora_policy(tiny_model("llama"))
    for each in (ours, plain):
        each.module.double()
    plain.model.set_attn_implementation("sdpa")
    in_order(pack(GROUPS, 60), ours.logps).sum().backward()
    plain_logps(plain.module.model, GROUPS).sum().backward()
    assert largest_difference(gradients(ours.module.model), gradients(plain.module.model)) < 1e-8


def test_lora_with_gradient_checkpointing(tiny_model: Callable[..., Path]) -> None:
    found = []
    for checkpointing in (False, True):
        ours = lora_policy(tiny_model("olmo2"), gradient_checkpointing=checkpointing)
        in_order(pack(GROUPS, 60), ours.logps).sum().backward()
        found.append(gradients(ours.module))
    assert largest_difference(found[1], found[0]) < 1e-6


def test_logits_that_are_not_the_models_own_are_refused(tiny_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("olmo2"))
    # OLMo 2 caps nothing, so this field of another architecture says something that is not true of it.
    model.config.final_logit_softcapping = 30.0
    with pytest.raises(RecipeError, match="Olmo2ForCausalLM: its logits differ"):
        Policy(model, load_tokenizer(tiny_model("olmo2"), "tokenizer"))
