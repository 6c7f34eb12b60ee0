"""Adapters by themselves are what peft saves; where an engine would misread them they are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

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


def test_what_an_engine_would_misread_is_refused(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"the model has no adapters; set rlvr\.lora"):
        adapter_form(Policy.load(tiny_model("llama")).module.model)
    experts = Policy.load(tiny_model("olmoe"), lora=Lora(rank=4)).module.model
    with pytest.raises(RecipeError, match=r"experts.* of OlmoeForCausalLM is no linear layer .*adapters to merged"):
        adapter_form(experts)
