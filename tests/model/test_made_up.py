"""The tiny random model of `--tiny`: of its own architecture, the same every time, and sometimes right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tulu.config.made_up import Architecture, architecture_of
from tulu.config.templates import TEMPLATES
from tulu.errors import RecipeError
from tulu.model.made_up import make_model, make_tokenizer

TEMPLATE = TEMPLATES["tulu"]
ANSWERS = ["#### 7", "#### 2", "\\boxed{9}", " river ", "```python\nprint(7)\n```"]


def make(folder: Path, **config: Any) -> Any:
    """A made model of this configuration, loaded by transformers, and its tokenizer."""
    make_model(Architecture(config), make_tokenizer(ANSWERS, TEMPLATE), ANSWERS, folder)
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama", "num_key_value_heads": 8},
        {"model_type": "qwen3", "tie_word_embeddings": True},
        dict(architecture_of("allenai/OLMoE-1B-7B-0125").config),
        {"model_type": "gpt2"},
    ],
    ids=lambda config: config["model_type"],
)
def test_half_of_what_it_says_is_an_answer(config: dict[str, Any], tmp_path: Path) -> None:
    model, tokenizer = make(tmp_path / "model", **config)
    assert model.config.model_type == config["model_type"]
    assert model.num_parameters() < 1_000_000
    ids = tokenizer("What is 8 + 1?\n#### 2ab")["input_ids"]
    shares = model(torch.tensor([ids])).logits[0].detach().softmax(dim=-1).mean(dim=0)
    assert 0.3 < float(shares[tokenizer.convert_tokens_to_ids(ANSWERS)].sum()) < 0.7
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    assert 0.04 < float(shares[ends].sum()) < 0.3


def test_an_answer_is_one_token_and_any_text_comes_back() -> None:
    tokenizer = make_tokenizer(ANSWERS, TEMPLATE)
    assert [len(tokenizer.encode(answer)) for answer in ANSWERS] == [1] * len(ANSWERS)
    for text in ("a #### 7b", "Größe 🙂\n", "#### 77"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_brings_the_template_that_stands_for_its_own() -> None:
    assert make_tokenizer(ANSWERS, "{{ messages }}").get_chat_template() == "{{ messages }}"
    several = make_tokenizer(ANSWERS, TEMPLATE, "tool_use").chat_template
    assert isinstance(several, dict)
    assert several["tool_use"] == several["default"]


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        torch.manual_seed(len(name))
        before = torch.random.get_rng_state()
        make(tmp_path / name, model_type="olmo2")
        assert torch.equal(torch.random.get_rng_state(), before)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "other/model.safetensors").read_bytes()


def test_a_checkpoints_own_files_code_and_arithmetic_are_left_behind(tmp_path: Path) -> None:
    model, _ = make(
        tmp_path / "model",
        model_type="llama",
        architectures=["Other"],
        auto_map={"AutoModelForCausalLM": "theirs.Model"},
        quantization_config={"quant_method": "gptq", "bits": 4},
        dtype="bfloat16",
    )
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert getattr(model.config, "auto_map", None) is None
    assert model.dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "whatnot"}, "'whatnot': ValueError"),
        ({"model_type": "mamba2"}, "it would have 2[0-9,]+ parameters"),
        ({"model_type": "llama", "hidden_size": "wide"}, "'llama': "),
    ],
)
def test_what_cannot_be_made_small_is_refused_in_two_lines(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=reason) as caught:
        make_model(Architecture(config), make_tokenizer(ANSWERS, TEMPLATE), ANSWERS, tmp_path)
    assert len(str(caught.value)) < 500
    assert "model=FOLDER" in str(caught.value)
