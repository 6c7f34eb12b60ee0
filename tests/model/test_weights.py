"""Weights under their published names: digests, merged adapters, and folders that transformers loads to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.model.policies import FAMILIES, GROUPS, lora_policy
from tests.samples import plain_logps
from tulu.errors import CheckpointError
from tulu.model.batch import pack_row
from tulu.model.policy import Policy


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


def test_weights_have_published_names(tiny_model: Callable[..., Path]) -> None:
    from safetensors import safe_open

    for family in FAMILIES:
        with safe_open(tiny_model(family) / "model.safetensors", "pt") as file:
            published = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        assert {name: tuple(tensor.shape) for name, tensor in Policy.load(tiny_model(family)).weights()} == published


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
