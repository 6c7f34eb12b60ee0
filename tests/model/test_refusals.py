"""A folder that is no model to train: one message says what it is and what to do, before any data is read."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.model.policies import LORA
from tulu.data.chat import apply_template
from tulu.errors import RecipeError
from tulu.model.load import checked_config, load_model, load_tokenizer
from tulu.model.policy import Policy

Spoil = Callable[[Path], None]


@pytest.fixture
def copy(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A good model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "copy"))


def change_config(**fields: Any) -> Spoil:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))

    return change


def quantised(method: str | None, **fields: Any) -> Spoil:
    return change_config(quantization_config={"quant_method": method, **fields} if method else fields)


def in_shards(folder: Path) -> None:
    """The weights in three files or more, of which one is lost."""
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(folder.parent / "whole").save_pretrained(folder, max_shard_size="20KB")
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def lose_a_shard(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "whole")
    in_shards(folder)


def cut(name: str, size: int) -> Spoil:
    return lambda folder: os.truncate(folder / name, size)


def lengthen(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def without(*patterns: str) -> Spoil:
    def remove(folder: Path) -> None:
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return remove


def to_adapters(folder: Path) -> None:
    """What PEFT saves of a model with adapters."""
    model = load_model(AutoModelForCausalLM, folder, trainable=True, lora=LORA)
    shutil.rmtree(folder)
    model.save_pretrained(folder)


def empty_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def to_gguf(folder: Path) -> None:
    without("*")(folder)
    (folder / "olmo-Q4_K_M.gguf").write_bytes(b"GGUF")


def to_unfinished_run(folder: Path) -> None:
    without("*")(folder)
    for name in ("recipe.yaml", "manifest.json"):
        (folder / name).write_text("{}")


def to_cache_entry(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "kept")
    without("*")(folder)
    shutil.move(folder.parent / "kept", folder / "snapshots" / "c0ffee")


def foreign(kind: str, **fields: Any) -> Spoil:
    """The configuration of another kind of model in place of the good one."""

    def write(folder: Path) -> None:
        AutoConfig.for_model(kind, **fields).save_pretrained(folder)

    return write


T5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "architectures": ["T5ForConditionalGeneration"]}

# What is wrong -> how it comes about, what the message must say.
UNTRAINABLE: dict[str, tuple[Spoil, list[str]]] = {
    "bitsandbytes 4 bit": (quantised("bitsandbytes", load_in_4bit=True), ["quantised (bitsandbytes 4bit)", "not quantised"]),
    "bitsandbytes of old": (quantised(None, load_in_8bit=True), ["quantised (bitsandbytes 8bit)"]),
    "gptq": (quantised("gptq", bits=4), ["quantised (gptq)", "name the checkpoint that it was made from"]),
    "awq": (quantised("awq", bits=4), ["quantised (awq)"]),
    "mxfp4": (
        quantised("mxfp4"),
        ["quantised (mxfp4)", "Mxfp4Config(dequantize=True)", "save_original_format=False"],
    ),
    "fp8": (quantised("fp8"), ["quantised (fp8)", "FineGrainedFP8Config(dequantize=True)"]),
    "T5": (foreign("t5", **T5), ["encoder-decoder model (T5ForConditionalGeneration)", "causal language model"]),
    "BERT": (foreign("bert", architectures=["BertForMaskedLM"]), ["reads in both directions (BertForMaskedLM)"]),
    "a model of images": (change_config(vision_config={"hidden_size": 8}), ["reads vision too", "text-only checkpoint"]),
    "an encoder of images": (foreign("vit"), ["is a vit model", "no causal language model"]),
    "a missing shard": (lose_a_shard, ["lacks 1 of", "model-00002-of-", "copy what is missing"]),
    "weights cut in their header": (cut("model.safetensors", 100), ["model.safetensors (100 bytes)", "was cut short"]),
    "weights cut at their end": (cut("model.safetensors", 20_000), ["model.safetensors that was cut short: 20,000 bytes of"]),
    "no weights left": (cut("model.safetensors", 0), ["model.safetensors (0 bytes)", "copy this file again"]),
    "weights too long": (lengthen, ["model.safetensors that was damaged"]),
    "no weights": (without("*.safetensors"), ["has no weights", "copy all files of the model"]),
    "config.json cut short": (cut("config.json", 10), ["has a config.json that is no JSON object"]),
    "no model_type": (empty_config, ["config.json without model_type"]),
    "no config.json": (without("config.json"), ["is a folder without config.json; name"]),
    "nothing": (without("*"), ["without config.json (it is empty); name a Hugging Face model folder"]),
    "adapters": (to_adapters, ["holds LoRA adapters", "and no whole model", "merge_and_unload()", "copy-merged"]),
    "GGUF": (to_gguf, ["holds GGUF files alone (olmo-Q4_K_M.gguf)"]),
    "a run": (to_unfinished_run, ["is a run that has not finished"]),
    "an entry of the hub's cache": (to_cache_entry, ["did you mean", "snapshots/c0ffee?"]),
    "an unknown architecture": (change_config(model_type="olmo9"), ["cannot be loaded", "olmo9"]),
}


@pytest.mark.parametrize("name", UNTRAINABLE)
def test_what_cannot_be_trained_is_refused_by_its_configuration_and_headers(name: str, copy: Path) -> None:
    spoil, expected = UNTRAINABLE[name]
    spoil(copy)
    with pytest.raises(RecipeError) as error:
        checked_config(copy, trainable=True)
    for text in (str(copy), *expected):
        assert text in str(error.value)
    with pytest.raises(RecipeError):
        Policy.load(copy, template="tulu")


def test_a_whole_model_is_not_refused(copy: Path) -> None:
    assert checked_config(copy, trainable=True).model_type == "llama"
    torch.save(AutoModelForCausalLM.from_pretrained(copy).state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert checked_config(copy, trainable=True).model_type == "llama"


def run_cure(error: RecipeError, **names: Path) -> None:
    """Run the program that a message gives, with these folders in place of the words in capitals."""
    program = re.search(r'python -c "(.*)"', str(error))
    assert program, error
    text = program[1]
    for word, folder in names.items():
        text = text.replace(f"'{word}'", f"'{folder}'")
    exec(text, {})


def test_the_cure_of_adapters_gives_the_merged_model(copy: Path, tmp_path: Path) -> None:
    adapted = Policy.load(copy, template="tulu", lora=LORA)
    with torch.no_grad():
        for name, parameter in adapted.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    outer: Any = adapted.module.model
    outer.save_pretrained(tmp_path / "adapters")
    with pytest.raises(RecipeError, match=f"of {copy}, and no whole model") as refused:
        checked_config(tmp_path / "adapters", trainable=True)
    run_cure(refused.value)
    merged = Policy.load(tmp_path / "adapters-merged", template="tulu")
    for (name, ours), (other, theirs) in zip(sorted(adapted.weights()), sorted(merged.weights()), strict=True):
        assert name == other
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_cure_of_mxfp4_gives_a_model_that_trains(copy: Path, tmp_path: Path) -> None:
    """A tiny gpt-oss whose experts are stored as blocks of four bits, with one exponent for each 32 of them."""
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    config = AutoConfig.for_model(
        "gpt_oss", vocab_size=258, num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2, **shape
    )
    folder = tmp_path / "four"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj") and "experts" in name]:
        experts, inputs, outputs = weights.pop(name).shape
        weights[f"{name}_blocks"] = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.full((experts, outputs, inputs // 32), 120, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(quantization_config={"quant_method": "mxfp4"})(folder)
    load_tokenizer(copy, "tulu").save_pretrained(folder)
    with pytest.raises(RecipeError, match="is quantised") as refused:
        checked_config(folder, trainable=True)
    run_cure(refused.value, MODEL=folder, FOLDER=tmp_path / "plain")
    assert checked_config(tmp_path / "plain", trainable=True).model_type == "gpt_oss"
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    # The sixteen numbers of four bits (OCP Microscaling, E2M1), times two to the power of the scale, 120 - 127.
    numbers = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]) * 2.0**-7
    blocks = weights["model.layers.0.mlp.experts.down_proj_blocks"].long()
    expected = torch.stack([numbers[blocks & 15], numbers[blocks >> 4]], -1).reshape(4, 64, 64).transpose(1, 2)
    torch.testing.assert_close(model.model.layers[0].mlp.experts.down_proj.detach(), expected, atol=0, rtol=0)


def test_the_cure_for_adapters_keeps_the_template_that_lies_beside_them(copy: Path, tmp_path: Path) -> None:
    base = tmp_path / "plain-base"
    shutil.copytree(copy, base)
    load_model(AutoModelForCausalLM, base, trainable=True, lora=LORA).save_pretrained(adapters := tmp_path / "adapters")
    load_tokenizer(base, "tulu").save_pretrained(adapters)
    with pytest.raises(RecipeError, match="merge_and_unload") as refused:
        checked_config(adapters, trainable=True)
    run_cure(refused.value)
    merged = tmp_path / "adapters-merged"
    assert checked_config(merged, trainable=True)
    assert "<|assistant|>" in load_tokenizer(merged, "tokenizer").chat_template


def test_adapters_on_the_hub_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / "models--someone--adapters"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("c0ffee" + "0" * 34)
    snapshot = cached / "snapshots" / ("c0ffee" + "0" * 34)
    snapshot.mkdir(parents=True)
    (snapshot / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RecipeError, match="someone/adapters: holds LoRA adapters"):
        checked_config("someone/adapters", trainable=True)


@pytest.mark.parametrize(("name", "hint"), [("./coyp", "did you mean copy?"), ("nowhere/at/all", "looked from")])
def test_a_path_with_a_slip_is_answered_with_the_folder_that_was_meant(
    name: str, hint: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    with pytest.raises(RecipeError, match=r"no such folder") as error:
        checked_config(name, trainable=True)
    assert hint in str(error.value)


def test_a_slip_that_looks_like_a_name_on_the_hub_is_answered_too(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent.parent)
    with pytest.raises(RecipeError, match=r"did you mean .*/copy"):
        checked_config(f"{copy.parent.name}/coyp", trainable=True)


def test_the_model_of_a_stage_that_has_not_finished_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine" / "sft").mkdir(parents=True)
    (tmp_path / "mine" / "sft" / "recipe.yaml").write_text("name: mine\n")
    with pytest.raises(RecipeError, match=r"the stage of .*mine/sft has not finished; run `tulu sft` of its recipe again"):
        checked_config(tmp_path / "mine" / "sft" / "model", trainable=True)


def test_a_checkpoint_to_resume_from_is_no_model(tmp_path: Path) -> None:
    step = tmp_path / "mine" / "sft" / "checkpoints" / "step-000010"
    step.mkdir(parents=True)
    with pytest.raises(RecipeError, match="is a checkpoint to resume a run from, and no model; run `tulu sft`"):
        checked_config(step, trainable=True)


# -- tokenizers and their templates --------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer_is_told_apart_from_one_without_a_model(copy: Path) -> None:
    without("tokenizer*", "special_tokens*", "chat_template*")(copy)
    with pytest.raises(RecipeError, match=r"has no tokenizer \(tokenizer.json, tokenizer_config.json\); copy these files"):
        load_tokenizer(copy, "tulu")
    assert checked_config(copy, trainable=True)


@pytest.fixture
def several_templates(copy: Path) -> Path:
    """A tokenizer with templates for tools and for retrieval, and no default, as Command R has them."""
    tokenizer = AutoTokenizer.from_pretrained(copy)
    without("chat_template*")(copy)
    tokenizer.chat_template = {"tool_use": "T{{ messages[0].content }}", "rag": "R{{ messages[0].content }}"}
    tokenizer.save_pretrained(copy)
    return copy


def test_several_templates_without_a_default_are_named(several_templates: Path) -> None:
    with pytest.raises(RecipeError, match="several chat templates and no default; set it to one of tokenizer:rag, tokenizer:too"):
        load_tokenizer(several_templates, "tokenizer")
    with pytest.raises(RecipeError, match="no chat template 'rga'; set template to one of tokenizer:rag, tokenizer:tool_use"):
        load_tokenizer(several_templates, "tokenizer:rga")


def test_one_of_several_templates_can_be_chosen(several_templates: Path) -> None:
    tokenizer = load_tokenizer(several_templates, "tokenizer:rag")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False) == "R?"


def test_a_default_among_several_templates_is_taken(copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokenizer.chat_template = {"default": "D", "rag": "R"}
    apply_template(tokenizer, "tokenizer")
    assert tokenizer.get_chat_template() == "D"
