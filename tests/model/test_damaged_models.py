"""Model folders of which configuration and headers look whole: whatever transformers raises is one message with the cure."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.model.policies import LORA
from tulu.errors import RecipeError
from tulu.model.load import load_tokenizer
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel

EXPERT = "model.layers.1.mlp.experts.2.up_proj.weight"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def copy(tiny_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A good model's folder, to be spoilt."""
    return Path(shutil.copytree(tiny_model("llama"), tmp_path / "copy"))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "nonsense"}, r"cannot be loaded as a model \(KeyError: 'nonsense'\)"),
        (
            {"num_attention_heads": 5},
            r"cannot be loaded as a tokenizer \(.*not a multiple of the number of attention heads \(5\)\.\)",
        ),
    ],
)
def test_settings_that_no_model_can_have(fields: dict[str, Any], message: str, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **fields}))
    with pytest.raises(RecipeError, match=rf"{copy}: {message}\nCorrect its files, or copy or download the model again\."):
        Policy.load(copy, template="tulu")


def test_a_pickle_that_is_no_checkpoint_is_not_run(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": print}, protocol=2))
    with pytest.raises(
        RecipeError, match=rf"{copy}: cannot be loaded as a model \(Weights only load failed.*\)\nCorrect its files, or copy"
    ):
        Policy.load(copy, template="tulu")


def test_a_damaged_tokenizer_is_called_one(copy: Path) -> None:
    (copy / "tokenizer.json").write_text('{"x": 1}')
    with pytest.raises(
        RecipeError, match=rf"{copy}: cannot be loaded as a tokenizer \(KeyError: .*\)\nCorrect its files, or copy"
    ):
        load_tokenizer(copy, "tulu")


def test_a_missing_expert_is_named_by_the_weight_that_it_belongs_to(
    tiny_model: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(tiny_model("olmoe"), tmp_path / "model"))
    edit_weights(folder, lambda weights: weights.pop(EXPERT))
    with pytest.raises(RecipeError, match=r"the experts of a layer, some are missing .*: model\.layers\.1\.mlp\.experts\."):
        Policy.load(folder, template="tulu")
    assert "LOAD REPORT" not in "".join(capfd.readouterr()), "one message"


@pytest.mark.parametrize("trainable", [True, False])
def test_weights_that_are_not_finite_are_named(trainable: bool, copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_weights(copy, lambda weights: weights[UP][3].fill_(torch.inf))
    with pytest.raises(RecipeError, match=rf"{copy}: weights that are not finite: {UP}"):
        Policy.load(copy, template="tulu", trainable=trainable)
    with pytest.raises(RecipeError, match=rf"{copy}: weights that are not finite: {UP}"):
        RewardModel.load(copy, template="tulu", new_head=0)
    assert not caplog.text, "one message"


@pytest.mark.parametrize("trainable", [True, False])
def test_adapters_beside_a_whole_model_are_not_added_to_it_silently(trainable: bool, copy: Path) -> None:
    adapted: Any = Policy.load(copy, template="tulu", lora=LORA).module.model
    adapted.save_pretrained(copy)
    with pytest.raises(
        RecipeError, match=r"beside a whole model, .* remove adapter_config\.json to have it without, or merge them"
    ):
        Policy.load(copy, template="tulu", trainable=trainable)
    (copy / "adapter_config.json").unlink()
    Policy.load(copy, template="tulu", trainable=trainable)
