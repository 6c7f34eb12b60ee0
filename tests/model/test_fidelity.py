"""A checkpoint that is not the model's, and a model that would not be saved as it is, are refused before anything is trained."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from tests.model.policies import LORA
from tulu.cli import app
from tulu.errors import RecipeError
from tulu.model import fidelity
from tulu.model.adapters import add_adapters
from tulu.model.fidelity import check_reload, check_saving
from tulu.model.policy import Policy
from tulu.model.published import published_shapes
from tulu.reward_models.model import RewardModel

State = dict[str, Tensor]


def edited(folder: Path, source: Path, edit: Callable[[State], State]) -> Path:
    """A copy of a model folder whose weights have gone through `edit`."""
    shutil.copytree(source, folder)
    save_file(edit(load_file(source / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


NORM = "model.layers.1.post_attention_layernorm.weight"
DAMAGES: dict[str, tuple[Callable[[State], State], str]] = {
    "compiled": (
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "weights of the model are missing",
    ),
    "one missing": (lambda state: {n: t for n, t in state.items() if n != NORM}, f"1 weights of the model are missing: {NORM}"),
    "one too many": (lambda state: {**state, "model.extra.weight": torch.zeros(2)}, "1 weights are not the model's: model.extra"),
    "one renamed": (lambda state: {n.replace("norm.weight", "norm.wieght"): t for n, t in state.items()}, "norm.wieght"),
    "another shape": (lambda state: {**state, NORM: torch.zeros(33)}, NORM),
    "a layer too few": (lambda state: {n: t for n, t in state.items() if ".layers.1." not in n}, "model.layers.1."),
    "a value head": (lambda state: {**state, "v_head.summary.weight": torch.zeros(1, 32)}, "v_head.summary.weight"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("trainable", [True, False])
def test_keys_that_do_not_match_are_named(damage: str, trainable: bool, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    edit, message = DAMAGES[damage]
    folder = edited(tmp_path / "model", tiny_model("llama"), edit)
    with pytest.raises(RecipeError) as found:
        Policy.load(folder, trainable=trainable)
    assert message in str(found.value)
    assert str(folder) in str(found.value)
    assert len(str(found.value)) < 1000, "a message names the first few"


def test_a_run_from_such_a_checkpoint_exits_with_2(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = edited(tmp_path / "model", tiny_model("llama"), DAMAGES["compiled"][0])
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "2 + 2?", "completion": "4"}) + "\n")
    recipe = tmp_path / "recipe.yaml"
    sft = {"data": str(tmp_path / "rows.jsonl"), "max_length": 64, "batch": 1, "steps": 1, "learning_rate": 1e-3}
    recipe.write_text(json.dumps({"name": "broken", "model": str(folder), "sft": sft}))
    result = CliRunner().invoke(app, ["sft", str(recipe), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert "_orig_mod." in result.stderr
    assert not (tmp_path / "runs" / "broken" / "sft" / "model").exists()


def test_what_is_known_to_be_harmless_loads(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    rotary = edited(
        tmp_path / "rotary", tiny_model("llama"), lambda s: {**s, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    )
    assert Policy.load(rotary).digest() == Policy.load(tiny_model("llama")).digest()
    tied = tiny_model("llama", tie_word_embeddings=True)
    twice = edited(tmp_path / "twice", tied, lambda s: {**s, "lm_head.weight": s["model.embed_tokens.weight"].clone()})
    assert Policy.load(twice).digest() == Policy.load(tied).digest()
    head = edited(tmp_path / "head", tied, lambda s: {"lm_head.weight" if "embed" in n else n: t for n, t in s.items()})
    assert Policy.load(head).digest() == Policy.load(tied).digest()
    # The trunk of a reward model is a language model's, whose own head it does not need.
    RewardModel.load(tiny_model("llama"), new_head=0, trainable=True)


def test_names_without_the_prefix_of_the_trunk_load(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Such as GPT-2's, which was published as the transformer alone."""
    tied = tiny_model("llama", tie_word_embeddings=True)
    bare = edited(tmp_path / "bare", tied, lambda state: {name.removeprefix("model."): t for name, t in state.items()})
    assert Policy.load(bare).digest() == Policy.load(tied).digest()


def test_what_the_architecture_leaves_out_is_named_in_the_log(
    tiny_model: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "_keys_to_ignore_on_load_unexpected", {r"model\.layers\.2\..*"}, raising=False)
    deeper = edited(tmp_path / "deeper", tiny_model("llama"), lambda s: {**s, "model.layers.2.mlp.up_proj.weight": torch.ones(2)})
    with caplog.at_level(logging.WARNING, logger="tulu"):
        Policy.load(deeper)
    assert "1 weights of the checkpoint are no part of LlamaForCausalLM: model.layers.2.mlp.up_proj.weight" in caplog.text


def loaded(folder: Path, lora: bool = False) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return add_adapters(model, LORA) if lora else model


@pytest.mark.parametrize("family", ["llama", "olmoe"])
@pytest.mark.parametrize("lora", [False, True])
def test_a_value_that_changed_since_it_was_loaded_is_named(family: str, lora: bool, tiny_model: Callable[..., Path]) -> None:
    folder = tiny_model(family)
    model = loaded(folder, lora)
    check_saving(model, folder)
    parameter = next(p for n, p in model.named_parameters() if "embed_tokens" in n)
    with torch.no_grad():
        parameter[-1, 0] += 1e-3
    with pytest.raises(RecipeError, match=r"1 weights have other values: model\.embed_tokens\.weight"):
        check_saving(model, folder)


def test_adapters_that_already_change_something_are_noticed(tiny_model: Callable[..., Path]) -> None:
    model = loaded(tiny_model("olmoe"), lora=True)
    for name, parameter in model.named_parameters():
        if "experts" in name and "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.01)
    with pytest.raises(RecipeError, match=r"weights have other values: model\.layers\.0\.mlp\.experts\.0\.down_proj\.weight"):
        check_saving(model, tiny_model("olmoe"))


def test_a_weight_that_would_not_be_saved_is_noticed(tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was with the buffers of DeepSeek-V3 and the experts of OLMoE, whatever forgets them."""
    model = loaded(tiny_model("llama"))
    names = dict(published_shapes(model))
    with pytest.raises(RecipeError, match=f"1 weights would be missing: {NORM}"):
        check_reload(model, {name: tensor for name, tensor in names.items() if name != NORM})
    with pytest.raises(RecipeError, match=r"1 weights would be left out: model\.base_layer\.weight"):
        check_reload(model, {**names, "model.base_layer.weight": torch.empty(2, device="meta")})
    with pytest.raises(RecipeError, match="1 weights would have another shape"):
        check_reload(model, {**names, NORM: torch.empty(2, device="meta")})
    monkeypatch.setattr(fidelity, "check_reload", lambda *_: None)
    monkeypatch.setattr(fidelity, "published_shapes", lambda _: {name: t for name, t in names.items() if name != NORM})
    with pytest.raises(RecipeError, match=f"1 weights are lost: {NORM}"):
        check_saving(model, tiny_model("llama"))


def test_shards_pickles_and_the_hub_are_read_alike(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_model("olmoe")
    state = load_file(source / "model.safetensors")
    shutil.copytree(source, tmp_path / "pickle")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pickle" / "pytorch_model.bin")
    shutil.copytree(tmp_path / "pickle", tmp_path / "shards")
    (tmp_path / "shards" / "pytorch_model.bin").unlink()
    parts = {f"model-0000{i}-of-00002.safetensors": dict(list(state.items())[i - 1 :: 2]) for i in (1, 2)}
    for file, part in parts.items():
        save_file(part, tmp_path / "shards" / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "shards" / "model.safetensors.index.json").write_text(json.dumps(index))
    commit = "c0ffee" + "0" * 34
    cached = tmp_path / "cache" / "models--someone--tiny"
    shutil.copytree(tmp_path / "shards", cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    model = loaded(source)
    for path in (source, tmp_path / "pickle", tmp_path / "shards", "someone/tiny"):
        check_saving(model, path)
    with torch.no_grad():
        model.get_parameter("model.layers.1.self_attn.q_norm.weight")[3] = 7.0
    for path in (source, tmp_path / "pickle", tmp_path / "shards", "someone/tiny"):
        with pytest.raises(RecipeError, match=r"other values: model\.layers\.1\.self_attn\.q_norm\.weight"):
            check_saving(model, path)


def test_what_stays_wider_than_the_rest_is_stored_so(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    wide = "model.layers.0.input_layernorm.weight"
    half: dict[str, Any] = {"dtype": "bfloat16"}

    def mixed(state: State) -> State:
        return {name: tensor if name == wide else tensor.bfloat16() for name, tensor in state.items()}

    folder = edited(tmp_path / "mixed", tiny_model("llama"), mixed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **half}))
    Policy.load(folder).save(tmp_path / "saved")
    found, expected = load_file(tmp_path / "saved" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert {name: tensor.dtype for name, tensor in found.items()} == {name: tensor.dtype for name, tensor in expected.items()}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
