"""Adapters by themselves are what peft saves; where an engine would misread them they are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tulu.config.job import ADAPTERS
from tulu.config.parts import Lora
from tulu.errors import RecipeError
from tulu.model.adapters_apart import adapter_form, adapter_weights
from tulu.model.policy import Policy


def test_names_values_and_settings_are_those_that_peft_saves(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    model: Any = Policy.load(tiny_model("llama"), lora=Lora(rank=4, alpha=8)).module.model
    with torch.no_grad():
        for place, parameter in enumerate(each for each in model.parameters() if each.requires_grad):
            parameter.fill_(place)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    sent = dict(adapter_weights(model))
    assert sent.keys() == saved.keys()
    assert all(torch.equal(sent[name], saved[name]) for name in saved)
    form = adapter_form(model)
    assert form.shapes == {name: tuple(tensor.shape) for name, tensor in saved.items()}
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    told = json.loads(form.config)
    assert (form.rank, told["r"], told["lora_alpha"]) == (4, 4, 8)
    assert sorted(told["target_modules"]) == sorted(written["target_modules"])
    assert told["peft_type"] == written["peft_type"] == "LORA"


def test_a_saved_model_holds_its_adapters_apart_and_merged(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """peft puts the adapters onto the starting model again, and that is the merged model."""
    start = tiny_model("llama")
    policy = Policy.load(start, lora=Lora(rank=4, alpha=8), template="tulu")
    with torch.no_grad():
        for parameter in policy.module.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    policy.save(tmp_path / "model")
    plain: Any = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32).eval()
    merged: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    adapted = PeftModel.from_pretrained(plain, str(tmp_path / "model" / ADAPTERS)).eval()
    tokens = torch.tensor([[65, 66, 67, 68]])
    with torch.no_grad():
        assert torch.allclose(adapted(tokens).logits, merged(tokens).logits, atol=1e-5)
        with adapted.disable_adapter():
            assert not torch.allclose(adapted(tokens).logits, merged(tokens).logits, atol=1e-3)
    Policy.load(start, template="tulu").save(tmp_path / "whole")
    assert not (tmp_path / "whole" / ADAPTERS).exists()


def test_what_an_engine_would_misread_is_refused(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"the model has no adapters; set rlvr\.lora"):
        adapter_form(Policy.load(tiny_model("llama")).module.model)
    experts = Policy.load(tiny_model("olmoe"), lora=Lora(rank=4)).module.model
    with pytest.raises(RecipeError, match=r"experts.* of OlmoeForCausalLM is no linear layer .*adapters to merged"):
        adapter_form(experts)
