"""A teacher answers with transformers' own log-probs, whatever its architecture, and is refused where it reads other tokens."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.samples import in_order, make_group, make_stage, plain_logps
from tulu.config.schema import Rlvr
from tulu.errors import RecipeError
from tulu.model.batch import pack
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.stages.frozen import load_teacher

SIZES = {"prompts": 2, "samples": 2, "batch": 4, "max_prompt": 64, "max_tokens": 64, "temperature": 0.8}


def stage(**fields: Any) -> Rlvr:
    made: Rlvr = make_stage(Rlvr, **{**SIZES, **fields})
    return made


@pytest.fixture(scope="module")
def policy(tiny_model: Callable[..., Path]) -> Policy:
    return Policy.load(tiny_model("llama"))


@pytest.mark.parametrize("family", ["qwen3", "olmo_hybrid"])
def test_a_teacher_of_another_architecture(family: str, policy: Policy, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_model(family, 3), folder := tmp_path / family)
    groups = [make_group(seed, 5, [6, 4], trained=1.0) for seed in range(3)]
    # A base model that nobody has given a chat template.
    (folder / "chat_template.jinja").unlink()
    settings = stage(teacher=str(folder))
    teacher = load_teacher(policy, Parallel(settings), settings, trust_remote_code=False)
    assert teacher is not None
    found = in_order(pack(groups, 40), teacher)
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        expected = plain_logps(plain, groups, 0.8)
    assert (found - expected).abs().max() < 1e-4
    assert not found.requires_grad


def test_without_a_teacher_nothing_is_loaded(policy: Policy) -> None:
    assert load_teacher(policy, Parallel(stage()), stage(), trust_remote_code=False) is None


def refusal(folder: Path, policy: Policy, **fields: Any) -> str:
    settings = stage(teacher=str(folder), **fields)
    with pytest.raises(RecipeError) as error:
        load_teacher(policy, Parallel(settings), settings, trust_remote_code=False)
    return str(error.value)


def test_a_teacher_of_other_tokens_is_refused(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = tiny_model("llama", 4, vocab_size=300)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<think>"])
    own = Policy.load(tiny_model("llama", 5))
    own.tokenizer.add_tokens(["<tool>"])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    expected = "rlvr.teacher: the teacher has another vocabulary than the policy; name one of the same tokenizer"
    assert refusal(tmp_path, own) == expected


def test_a_teacher_with_too_few_positions_is_refused(policy: Policy, tiny_model: Callable[..., Path]) -> None:
    text = refusal(tiny_model("llama", 4, max_position_embeddings=100), policy)
    assert "rlvr.max_prompt + rlvr.max_tokens: 128 tokens" in text
    assert "has 100 positions" in text


def test_a_teacher_whose_files_are_incomplete_is_refused(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert str(tmp_path) in refusal(tmp_path, policy)
