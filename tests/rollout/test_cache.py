"""The cache that grows in place holds the same keys and values as transformers' own cache."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.cache_utils import DynamicCache

from tulu.rollout.cache import GrowingLayer, growing_cache


@pytest.mark.parametrize("prefill", [1, 60, 64, 130])
def test_the_growing_cache_holds_what_the_ordinary_one_holds(prefill: int) -> None:
    """Beyond the first block, with repeated rows and with rows left out."""
    ours, plain = GrowingLayer(), DynamicCache()
    generator = torch.Generator().manual_seed(0)

    def compare(rows: int, new: int) -> None:
        keys, values = torch.randn(2, rows, 2, new, 4, generator=generator)
        actual, expected = ours.update(keys, values), plain.update(keys, values, 0)
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
        assert ours.get_seq_length() == plain.get_seq_length()

    compare(3, prefill)
    for index in (torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 3, 5])):
        ours.reorder_cache(index)
        plain.reorder_cache(index)  # type: ignore[arg-type]
        for _ in range(70):
            compare(len(index), 1)


def test_recurrent_layers_keep_their_own_cache(tiny_model: Callable[..., Path]) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model("olmo_hybrid"))
    kinds = [type(layer) is GrowingLayer for layer in growing_cache(model.config).layers]
    assert kinds == [kind == "full_attention" for kind in model.config.layer_types]
