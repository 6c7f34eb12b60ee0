"""The size of a model is that of the model that transformers makes of the same configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.config.sizes import model_size


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "olmoe", "qwen3", "llama", "olmo_hybrid"])
def test_parameters_are_those_of_the_model(tiny_model: Callable[..., Path], family: str) -> None:
    from transformers import AutoModelForCausalLM

    # Wide enough that the norms, which the count leaves out, are small.
    folder = tiny_model(family, hidden_size=128, intermediate_size=256, **({"head_dim": 32} if family == "qwen3" else {}))
    size = model_size(str(folder))
    assert size is not None
    # A short convolution, which is left out too, is a larger part of a tiny model than of a large one.
    close = 0.02 if family == "olmo_hybrid" else 0.005
    assert size.parameters == pytest.approx(AutoModelForCausalLM.from_pretrained(folder).num_parameters(), rel=close)
    assert size.has_experts == (family == "olmoe")
    assert size.embeddings == size.vocabulary * 128 * 2


def test_layers_with_and_without_a_window(tiny_model: Callable[..., Path]) -> None:
    olmo3, hybrid, llama = (model_size(str(tiny_model(family))) for family in ("olmo3", "olmo_hybrid", "llama"))
    assert olmo3 is not None
    assert hybrid is not None
    assert llama is not None
    assert sum(count for _, count in olmo3.windows) == olmo3.layers
    assert {window for window, _ in olmo3.windows} == {None, model_window(tiny_model("olmo3"))}
    assert sum(count for _, count in hybrid.windows) < hybrid.layers, "linear attention sees no tokens before"
    assert llama.windows == ((None, 2),)


def model_window(folder: Path) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(folder).sliding_window)


def test_a_hub_name_is_unknown_offline() -> None:
    assert model_size("owner/never-downloaded") is None
    assert model_size(None) is None
    assert model_size(None, {"model_type": "gpt2", "n_embd": 8}) is None
