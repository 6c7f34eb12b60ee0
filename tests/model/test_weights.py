"""Weights under their published names: digests, merged adapters, and folders that transformers loads to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.model.policies import FAMILIES, GROUPS, LORA, lora_policy
from tests.model.tiny_configs import build
from tests.samples import plain_logps
from tulu.errors import CheckpointError
from tulu.model.batch import pack_row
from tulu.model.policy import Policy
from tulu.model.published import is_buffer


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


@pytest.mark.parametrize("family", ["qwen3", "olmoe"])
def test_merged_lora_weights_are_those_of_peft_and_load_in_transformers(
    family: str, tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    ours = lora_policy(tiny_model(family))
    batch = pack_row(GROUPS)
    logps = ours.logps(batch).detach()
    merged = {name: tensor.clone() for name, tensor in ours.weights()}
    ours.save(tmp_path / "merged")
    with ours.without_adapter():
        assert torch.equal(ours.logps(batch), Policy.load(tiny_model(family)).logps(batch))

    adapted: Any = ours.module.model
    adapted.merge_and_unload().save_pretrained(tmp_path / "peft")
    expected = load_file(tmp_path / "peft" / "model.safetensors")
    assert set(expected) == set(merged)
    for name, tensor in expected.items():
        assert torch.allclose(merged[name], tensor, rtol=0, atol=1e-7), name
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert (plain_logps(saved, GROUPS) - logps).abs().max() < 1e-5
    assert not list((tmp_path / "merged").glob("adapter_*"))


def test_each_expert_gets_the_product_of_its_own_adapters(tiny_model: Callable[..., Path]) -> None:
    """By hand: peft keeps A of expert e in rows e·r … e·r + r - 1, and B in every E-th column from e on."""
    ours = lora_policy(tiny_model("olmoe"))
    experts: Any = ours.model.get_submodule("model.layers.0.mlp.experts")
    before = load_file(tiny_model("olmoe") / "model.safetensors")
    rows, columns = experts.lora_A["default"].weight, experts.lora_B["default"].weight
    merged = dict(ours.weights())
    for expert in range(4):
        product = columns[:, expert::4] @ rows[4 * expert : 4 * expert + 4] * 2.0
        name = f"model.layers.0.mlp.experts.{expert}.down_proj.weight"
        assert product.abs().max() > 1e-3
        assert torch.allclose(merged[name], before[name] + product, rtol=0, atol=1e-6)


def test_buffers_that_belong_to_the_checkpoint_are_saved_and_counted(tmp_path: Path) -> None:
    folder = build("deepseek_v3", tmp_path / "model")
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    stored = load_file(folder / "model.safetensors")[name]
    for lora in (None, LORA):
        ours = Policy.load(folder, lora=lora)
        digest, weights = ours.digest(), dict(ours.weights())
        assert torch.equal(weights[name], stored)
        assert [key for key, tensor in weights.items() if is_buffer(tensor)] == [name]
        ours.save(tmp_path / "saved")
        assert torch.equal(load_file(tmp_path / "saved" / "model.safetensors")[name], stored)
        assert Policy.load(tmp_path / "saved").digest() == digest
        next(buffer for key, buffer in ours.model.named_buffers() if key.endswith("correction_bias"))[0] += 1.0
        assert ours.digest() != digest


def test_an_adapted_embedding_that_is_tied_is_saved_beside_its_head(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """The head does not have the adapter's product while it trains, so it is saved as a weight of its own."""
    folder = tiny_model("qwen3", tie_word_embeddings=True)
    ours = lora_policy(folder, LORA.model_copy(update={"targets": ("embed_tokens", "q_proj")}))
    adapter: Any = ours.model.get_input_embeddings()
    torch.nn.init.normal_(adapter.lora_embedding_A["default"], std=0.3)
    logps = ours.logps(pack_row(GROUPS)).detach()
    ours.save(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not plain.config.tie_word_embeddings
    assert (plain.lm_head.weight - plain.model.embed_tokens.weight).abs().max() > 0.01
    assert (plain_logps(plain, GROUPS) - logps).abs().max() < 1e-5
    assert (Policy.load(tmp_path).logps(pack_row(GROUPS)) - logps).abs().max() < 1e-5


def test_a_tied_model_stays_tied(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    for lora in (None, LORA):
        Policy.load(tiny_model("qwen3", tie_word_embeddings=True), lora=lora).save(tmp_path / "tied")
        assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "tied").config.tie_word_embeddings


def test_weights_come_a_layer_at_a_time(tiny_model: Callable[..., Path]) -> None:
    """A model that is sharded because it is too large is never whole in one process."""
    ours = Policy.load(tiny_model("olmoe"))
    first = next(ours.weights())
    assert first[0].startswith(("model.embed_tokens", "lm_head"))
    layers = [name.split(".")[2] for name, _ in ours.weights() if ".layers." in name]
    assert layers == sorted(layers)
