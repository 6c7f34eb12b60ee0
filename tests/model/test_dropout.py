"""Dropout acts on adapters that train, and nowhere else; the same seed draws the same masks."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tests.model.policies import GROUPS, LORA, lora_policy
from tests.samples import gradients, in_order, largest_difference, make_stage
from tulu.losses import sft_loss
from tulu.model.batch import pack, pack_row
from tulu.model.dropout import disable_dropout, evaluating
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy

DROPOUT = LORA.model_copy(update={"dropout": 0.5})


def test_dropout_is_switched_off(tiny_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("llama"), attention_dropout=0.3).train()
    assert model.model.layers[0].self_attn.attention_dropout == 0.3
    wrapped = nn.Sequential(model, nn.Dropout(0.5))
    disable_dropout(wrapped)
    assert model.model.layers[0].self_attn.attention_dropout == 0.0
    assert wrapped[1].p == 0.0


@torch.no_grad()
def test_adapters_drop_out_in_training_and_only_there(tiny_model: Callable[..., Path]) -> None:
    ours, without = lora_policy(tiny_model("qwen3"), DROPOUT), lora_policy(tiny_model("qwen3"))
    assert ours.module.training
    batch = pack_row(GROUPS)
    first, second = ours.logps(batch), ours.logps(batch)
    assert (first - second).abs().max() > 0.1
    with evaluating(ours.module):
        assert torch.equal(ours.logps(batch), ours.logps(batch))
        assert torch.equal(ours.logps(batch), without.logps(batch))
    assert not torch.equal(ours.logps(batch), ours.logps(batch)), "the modules have their mode back"
    assert torch.equal(without.logps(batch), without.logps(batch))


@torch.no_grad()
def test_without_its_adapters_a_policy_has_no_dropout(tiny_model: Callable[..., Path]) -> None:
    ours, batch = lora_policy(tiny_model("qwen3"), DROPOUT), pack_row(GROUPS)
    with ours.without_adapter():
        assert torch.equal(ours.logps(batch), Policy.load(tiny_model("qwen3")).logps(batch))


@torch.no_grad()
def test_frozen_adapters_do_not_drop_out(tiny_model: Callable[..., Path]) -> None:
    frozen, batch = lora_policy(tiny_model("qwen3"), DROPOUT, trainable=False), pack_row(GROUPS)
    assert torch.equal(frozen.logps(batch), frozen.logps(batch))
    assert torch.equal(frozen.logps(batch), lora_policy(tiny_model("qwen3"), trainable=False).logps(batch))


def test_digest_and_self_check_know_no_dropout(tiny_model: Callable[..., Path]) -> None:
    ours = lora_policy(tiny_model("olmo2"), DROPOUT)
    assert ours.module.trunk.shares_prefix
    assert ours.digest() == lora_policy(tiny_model("olmo2")).digest()


def test_one_line_says_so(tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tulu"):
        Policy.load(tiny_model("olmo2"), lora=LORA)
        Policy.load(tiny_model("olmo2"), lora=DROPOUT, trainable=False)
        assert "dropout" not in caplog.text
        Policy.load(tiny_model("olmo2"), lora=DROPOUT)
    assert [record.getMessage() for record in caplog.records if "lora.dropout 0.5 acts on" in record.getMessage()]


def test_gradient_checkpointing_draws_the_same_masks_twice(tiny_model: Callable[..., Path]) -> None:
    found = []
    for checkpointing in (False, True):
        ours = lora_policy(tiny_model("olmo2"), DROPOUT, gradient_checkpointing=checkpointing)
        torch.manual_seed(5)
        in_order(pack(GROUPS, 60), ours.logps).sum().backward()
        found.append(gradients(ours.module))
    assert largest_difference(found[1], found[0]) < 1e-6


def test_the_seed_of_a_stage_is_the_seed_of_its_dropout(tiny_model: Callable[..., Path]) -> None:
    def losses(seed: int) -> Tensor:
        torch.rand(seed)  # whatever was drawn before a stage trains
        ours = lora_policy(tiny_model("olmo2"), DROPOUT)
        stage = make_stage(seed=seed)
        trained = [parameter for parameter in ours.module.parameters() if parameter.requires_grad]
        ours.runner, _ = Parallel(stage).prepare(ours.module, torch.optim.AdamW(trained))
        return torch.stack([sft_loss(ours.logps(pack_row(GROUPS)))[0].detach() for _ in range(3)])

    assert torch.equal(losses(1), losses(1))
    assert not torch.equal(losses(1), losses(2))
