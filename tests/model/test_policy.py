"""The policy's log-probs and gradients are transformers' own, one sequence at a time, whatever the packing; saving, LoRA."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.samples import gradients, in_order, largest_difference, make_group, plain_logps, stay_in_float64
from tulu.config.schema import Lora
from tulu.errors import CheckpointError, RecipeError
from tulu.model.batch import pack, pack_row
from tulu.model.policy import Policy
from tulu.types import Group

SHARING = ["olmo2", "olmo3", "olmoe", "qwen3", "llama"]
"""Families whose completions share their prompt. Olmo 3's window of 6 is smaller than every sequence below."""
FAMILIES = [*SHARING, "olmo_hybrid"]
GROUPS = [make_group(0, 9, [7, 12]), make_group(1, 14, [5]), make_group(2, 3, [8, 1, 20]), make_group(3, 0, [17])]


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


def test_saving_and_loading_keeps_every_bit(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    for family in FAMILIES:
        ours = Policy.load(tiny_model(family))
        ours.save(tmp_path / family)
        again = Policy.load(tmp_path / family)
        assert again.digest() == ours.digest()
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / family)
        expected = AutoModelForCausalLM.from_pretrained(tiny_model(family))
        assert type(plain) is type(expected)
        for (name, found), (_, wanted) in zip(plain.state_dict().items(), expected.state_dict().items(), strict=True):
            assert torch.equal(found, wanted), name


def test_a_checkpoint_in_bfloat16_is_trained_in_float32_and_stored_in_bfloat16(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    half = AutoModelForCausalLM.from_pretrained(tiny_model("olmo2"), dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    Policy.load(tiny_model("olmo2")).tokenizer.save_pretrained(tmp_path / "half")
    ours = Policy.load(tmp_path / "half")
    assert {parameter.dtype for parameter in ours.module.parameters()} == {torch.float32}
    ours.save(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype="auto")
    assert saved.dtype == torch.bfloat16
    assert torch.equal(saved.lm_head.weight, half.lm_head.weight)


def test_saving_where_nothing_can_be_written_is_one_message(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="file"):
        Policy.load(tiny_model("olmo2")).save(tmp_path / "file" / "model")


@pytest.mark.parametrize("name", ["absent/folder", "empty"])
def test_a_model_that_is_not_there_is_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=name):
        Policy.load(tmp_path / name)


LORA = Lora(rank=4, alpha=8)


def lora_policy(folder: Path, **options: Any) -> Policy:
    """Adapters that do something: peft begins with B = 0."""
    ours = Policy.load(folder, lora=LORA, **options)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in ours.module.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1, generator=generator)
    return ours


def test_lora_starts_as_the_model_and_trains_adapters_alone(tiny_model: Callable[..., Path]) -> None:
    ours, plain = Policy.load(tiny_model("qwen3"), lora=LORA), Policy.load(tiny_model("qwen3"))
    batch = pack_row(GROUPS)
    assert torch.equal(ours.logps(batch), plain.logps(batch))
    trained = {name for name, parameter in ours.module.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert ours.digest() == plain.digest()


def test_merged_lora_weights_are_those_of_peft_and_load_in_transformers(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    ours = lora_policy(tiny_model("qwen3"))
    batch = pack_row(GROUPS)
    logps = ours.logps(batch).detach()
    merged = {name: tensor.clone() for name, tensor in ours.weights()}
    ours.save(tmp_path / "merged")
    with ours.without_adapter():
        assert torch.equal(ours.logps(batch), Policy.load(tiny_model("qwen3")).logps(batch))

    adapted: Any = ours.module.model
    expected = adapted.merge_and_unload()
    assert {name for name, _ in expected.named_parameters()} == set(merged)
    for name, parameter in expected.named_parameters():
        assert torch.allclose(merged[name], parameter, rtol=0, atol=1e-7), name
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (plain_logps(saved, GROUPS) - logps).abs().max() < 1e-5
    assert not list((tmp_path / "merged").glob("adapter*"))


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


def test_weights_have_published_names(tiny_model: Callable[..., Path]) -> None:
    from safetensors import safe_open

    for family in FAMILIES:
        with safe_open(tiny_model(family) / "model.safetensors", "pt") as file:
            published = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert {name: tuple(tensor.shape) for name, tensor in Policy.load(tiny_model(family)).weights()} == published


def test_scaled_logits_are_refused(tiny_model: Callable[..., Path]) -> None:
    ours = Policy.load(tiny_model("olmo2"))
    ours.model.config.final_logit_softcapping = 30.0
    with pytest.raises(RecipeError, match="final_logit_softcapping"):
        Policy(ours.model, ours.tokenizer)
