"""Every architecture, full and with adapters: loaded, trained for a step, saved and loaded again, or refused before training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.model.tiny_configs import CONFIGS, build
from tests.samples import make_group, plain_logps
from tulu.config.schema import Lora
from tulu.errors import RecipeError
from tulu.losses import sft_loss
from tulu.model.batch import pack_row
from tulu.model.policy import Policy
from tulu.model.private_state import ignored_at_loading
from tulu.reward_models.model import RewardModel

GROUPS = [make_group(0, 5, [9]), make_group(1, 3, [4, 14])]
LORA = Lora(rank=4, alpha=8)
REFUSED = {
    # Its layers share one block, and adapters would make several of it.
    ("zamba2", True): "weights of their own would be taken for others",
}
"""What is not trained, by architecture and whether it has adapters, and what the message says."""
Build = Callable[[str], Path]


@pytest.fixture(scope="module")
def architecture(tmp_path_factory: pytest.TempPathFactory) -> Build:
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp("architecture"))
        return made[name]

    return make


def plain(folder: Path) -> Any:
    """The model as transformers alone loads it; only eager attention computes what each architecture defines."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def train_one_step(ours: Policy, rate: float) -> None:
    """One step of SFT on two documents of different length."""
    trained = [parameter for parameter in ours.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate)
    sft_loss(ours.logps(pack_row(GROUPS)))[0].backward()
    optimizer.step()


def weights_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("adapters", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_is_what_was_trained(name: str, adapters: bool, architecture: Build, tmp_path: Path) -> None:
    folder = architecture(name)
    if (name, adapters) in REFUSED:
        with pytest.raises(RecipeError, match=REFUSED[name, adapters]):
            Policy.load(folder, lora=LORA if adapters else None)
        return
    ours, batch = Policy.load(folder, lora=LORA if adapters else None), pack_row(GROUPS)
    with torch.no_grad():
        before = ours.logps(batch)
        assert (before - plain_logps(plain(folder), GROUPS)).abs().max() < 1e-5, "untrained"
    train_one_step(ours, 5e-3 if adapters else 1e-3)
    ours.save(tmp_path)
    with torch.no_grad():
        trained = ours.logps(batch)
        assert (trained - before).abs().max() > 0.05, "the step moved it"
        assert (trained - plain_logps(plain(tmp_path), GROUPS)).abs().max() < 1e-5
        assert (trained - Policy.load(tmp_path, trainable=False).logps(batch)).abs().max() < 1e-5
    source, saved = weights_of(folder), weights_of(tmp_path)
    assert {key: tensor.shape for key, tensor in saved.items()} == {key: tensor.shape for key, tensor in source.items()}


def test_enough_architectures_are_tried() -> None:
    # Those that stand for another variant of one share its first word.
    assert len({name.split()[0] for name in CONFIGS}) >= 25


def test_a_silent_loss_of_a_buffer_would_be_seen(architecture: Build) -> None:
    source = weights_of(architecture("deepseek_v3"))
    biases = [tensor for name, tensor in source.items() if name.endswith("e_score_correction_bias")]
    assert biases
    assert all(tensor.abs().min() > 0 for tensor in biases)


@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma2", "gpt_neox", "mixtral", "deepseek_v3", "opt", "jamba"])
def test_a_reward_model_begins_with_the_weights_of_a_language_model(name: str, architecture: Build, tmp_path: Path) -> None:
    folder, batch = architecture(name), pack_row(GROUPS)
    ours = RewardModel.load(folder, trainable=True, new_head=1, lora=LORA)
    trained = [parameter for parameter in ours.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    ours.score(batch).sum().backward()
    optimizer.step()
    ours.save(tmp_path)
    with torch.no_grad():
        assert torch.allclose(RewardModel.load(tmp_path).score(batch), ours.score(batch), rtol=0, atol=1e-5)
    source = {key for key in weights_of(folder) if not key.startswith(("lm_head.", "embed_out."))}
    assert set(weights_of(tmp_path)) == {*source, "score.weight"}


def test_what_transformers_leaves_out_silently_is_known(architecture: Build) -> None:
    assert "rotary_emb" in ignored_at_loading(plain(architecture("llama")))
