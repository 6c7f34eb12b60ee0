"""One loader for every model: what is missing is one message, and its options reach the model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.model.policies import LORA
from tulu.errors import RecipeError
from tulu.model.load import align, hub_commit, load_model, stored_dtype
from tulu.model.policy import Policy


@pytest.mark.parametrize("name", ["absent/folder", "empty"])
def test_a_model_that_is_not_there_is_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=name):
        Policy.load(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "dtype", "trained"),
    [
        ({"trainable": True, "precision": "bf16"}, torch.float32, "all"),
        ({"trainable": True, "lora": LORA}, torch.float32, "adapters"),
        ({"precision": "fp32"}, torch.float32, "none"),
        ({"precision": "bf16"}, torch.bfloat16, "none"),
    ],
)
def test_what_trains_is_float32_and_what_is_frozen_has_its_precision(
    options: dict[str, Any], dtype: torch.dtype, trained: str, tiny_model: Callable[..., Path]
) -> None:
    model = load_model(AutoModelForCausalLM, tiny_model("llama"), **options)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (trained == "all" or (trained == "adapters" and "lora_" in name)), name


def test_what_a_checkpoint_lacks_is_handed_over_before_the_adapters(tiny_model: Callable[..., Path]) -> None:
    seen: list[tuple[str, set[str]]] = []
    load_model(
        AutoModelForSequenceClassification,
        tiny_model("llama"),
        lora=LORA,
        prepare=lambda model, missing: seen.append((type(model).__name__, missing)),
        num_labels=1,
    )
    assert seen == [("LlamaForSequenceClassification", {"score.weight"})]


def test_gradient_checkpointing_is_switched_on(tiny_model: Callable[..., Path]) -> None:
    assert load_model(AutoModelForCausalLM, tiny_model("llama"), gradient_checkpointing=True).is_gradient_checkpointing
    assert not load_model(AutoModelForCausalLM, tiny_model("llama")).is_gradient_checkpointing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_of_a_checkpoint_is_remembered(dtype: torch.dtype, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_model("llama"), dtype=dtype).save_pretrained(tmp_path)
    assert stored_dtype(tmp_path) == dtype
    assert load_model(AutoModelForCausalLM, tmp_path, trainable=True).tulu_saved_dtype == dtype


def test_weights_begin_where_torch_would_place_them() -> None:
    layer = torch.nn.Linear(4, 4)
    shifted = torch.zeros(17)[1:].view(4, 4)
    layer.weight.data = shifted
    assert layer.weight.data_ptr() % 64 == 4
    align(layer)
    assert layer.weight.data_ptr() % 64 == 0
    assert torch.equal(layer.weight.data, shifted)


def test_a_model_on_the_hub_is_known_by_its_commit(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c0ffee" + "0" * 34
    cached = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model("llama"), cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hub_commit("someone/tiny") == commit
    assert hub_commit("someone/tiny", commit) == commit
    with pytest.raises(RecipeError, match="someone/other: cannot be loaded"):
        hub_commit("someone/other")
