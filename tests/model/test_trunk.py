"""The trunk: what it reads, and that a model which cannot share a prompt is found out and gets padded rows."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.samples import make_group
from tulu.model.attention import SEGMENTS
from tulu.model.batch import pack_row
from tulu.model.trunk import Trunk

GROUPS = [make_group(0, 6, [5, 9]), make_group(1, 4, [3])]


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder)
    return model.eval()


@torch.no_grad()
def test_it_reads_what_the_head_needs(tiny_model: Callable[..., Path]) -> None:
    model = load(tiny_model("qwen3"))
    trunk = Trunk(model)
    padded = {read: trunk(pack_row(GROUPS), read) for read in ("trained", "last")}
    trunk.adopt_segments()
    assert trunk.shares_prefix
    batch = pack_row(GROUPS)
    assert trunk(batch).shape == (batch.n_trained, 32)
    assert trunk(batch, "last").shape == (3, 32)
    for read, expected in padded.items():
        assert (trunk(batch, read) - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_last_hidden_state_is_that_of_the_sequence_alone(tiny_model: Callable[..., Path]) -> None:
    model = load(tiny_model("olmo3"))
    trunk = Trunk(model)
    trunk.adopt_segments()
    found = trunk(pack_row(GROUPS), "last")
    plain = load(tiny_model("olmo3")).base_model
    for group in GROUPS[:1]:
        for index, completion in enumerate(group.completions):
            tokens = torch.tensor([[*group.prompt, *completion.tokens]])
            assert (found[index] - plain(input_ids=tokens).last_hidden_state[0, -1]).abs().max() < 1e-4


class Leaky(nn.Module):
    """An attention layer that lets each token look at its neighbour's value, whatever the layout says."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor, **kwargs: object) -> tuple[Tensor, object]:
        output, weights = self.inner(hidden_states=hidden_states, **kwargs)
        return output + 0.1 * hidden_states.cumsum(dim=1), weights


def test_a_model_that_mixes_documents_is_found_out(tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    model = load(tiny_model("qwen3"))
    model.model.layers[0].self_attn = Leaky(model.model.layers[0].self_attn)
    trunk = Trunk(model)
    with caplog.at_level(logging.WARNING, logger="tulu"):
        trunk.adopt_segments()
    assert not trunk.shares_prefix
    assert "padded rows" in caplog.text
    assert "of their size" in caplog.text or "of its size" in caplog.text
    assert model.config._attn_implementation == "sdpa"


def test_a_model_whose_forward_refuses_the_layout_is_found_out(
    tiny_model: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = load(tiny_model("llama"))
    forward = model.model.forward
    model.model.forward = lambda input_ids, attention_mask=None, use_cache=False: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache
    )
    trunk = Trunk(model)
    with caplog.at_level(logging.WARNING, logger="tulu"):
        trunk.adopt_segments()
    assert not trunk.shares_prefix
    assert "TypeError" in caplog.text
    assert trunk(pack_row(GROUPS)).shape[1] == 32


def test_the_probe_leaves_no_trace(tiny_model: Callable[..., Path]) -> None:
    model = load(tiny_model("olmo2")).train()
    before = torch.random.get_rng_state()
    trunk = Trunk(model)
    trunk.adopt_segments()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.config._attn_implementation == SEGMENTS
    assert all(parameter.grad is None for parameter in model.parameters())
