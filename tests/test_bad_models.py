"""Models that no stage can take, through the command line: one message with the cure, exit code 2, nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.test_bad_input import Place, complained, cut_weights, half_written
from tulu.data.chat import make_byte_tokenizer


def spoilt_copy(place: Place, name: str) -> Path:
    """A copy of the good model, to be spoilt."""
    return Path(shutil.copytree(yaml.safe_load(place.recipe.read_text())["model"], place.folder / name))


def configured(name: str, **fields: object) -> Callable[[Place], list[str]]:
    """A model whose config.json says something else."""

    def change(place: Place) -> list[str]:
        config = spoilt_copy(place, name) / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
        return [f"model={place.folder / name}"]

    return change


def larger_tokenizer(place: Place) -> list[str]:
    tokenizer = make_byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.save_pretrained(spoilt_copy(place, "larger"))
    return [f"model={place.folder / 'larger'}"]


def without_tokenizer(place: Place) -> list[str]:
    for file in spoilt_copy(place, "bare").glob("tokenizer*"):
        file.unlink()
    return [f"model={place.folder / 'bare'}"]


def adapters(place: Place) -> list[str]:
    (place.folder / "adapters").mkdir()
    (place.folder / "adapters" / "adapter_config.json").write_text('{"base_model_name_or_path": "allenai/OLMo-2-0425-1B"}')
    return [f"model={place.folder / 'adapters'}"]


# What is wrong -> stage, how it comes about, what the message must say.
MODELS: dict[str, tuple[str, Callable[[Place], list[str]], list[str]]] = {
    "weights cut short, only read": ("evaluate", cut_weights, ["cut: has a model.safetensors", "copy this file again"]),
    "quantised weights": (
        "rlvr",
        configured("q", quantization_config={"quant_method": "gptq", "bits": 4}),
        ['q": is quantised (gptq)', "name the checkpoint that it was made from"],
    ),
    "an encoder-decoder model": ("sft", configured("t5", is_encoder_decoder=True), ['t5": is an encoder-decoder model']),
    "code of a model": (
        "sft",
        configured("own", model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}),
        ["own: needs code of its own", "set trust_remote_code: true"],
    ),
    "adapters as a model": ("sft", adapters, ["holds LoRA adapters", "allenai/OLMo-2-0425-1B", "merge_and_unload()"]),
    "more tokens than embeddings": (
        "sft",
        larger_tokenizer,
        ["259 tokens and the model embeddings for 258", "<|im_end|>", "Set resize_embeddings: true"],
    ),
    "a model without a tokenizer": ("sft", without_tokenizer, ["bare: has no tokenizer", "copy these files"]),
}


@pytest.mark.parametrize("mistake", MODELS)
def test_a_model_that_no_stage_can_take_is_named_with_its_cure(
    mistake: str, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    place = Place(tmp_path, tiny_model("olmo2"))
    stage, spoil, expected = MODELS[mistake]
    complained(place.call(stage, *spoil(place)), 2, *expected)
    assert half_written(place.runs) == []
    assert not list(place.runs.rglob("checkpoints"))
