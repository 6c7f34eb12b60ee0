"""Gradient checkpointing: what is computed again, what is kept, and that it changes no gradient."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.samples import gradients, largest_difference, make_group
from tulu.config.schema import Lora
from tulu.model.batch import pack_row
from tulu.model.policy import Policy
from tulu.model.recompute import Recompute

BATCH = pack_row([make_group(0, 9, [7, 5]), make_group(1, 4, [6])])


class Count(TorchDispatchMode):
    """How often each operation runs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def backward(policy: Policy) -> Counter[str]:
    """Go backward through the log-probs of BATCH; how often each operation ran in the backward pass."""
    loss = (policy.logps(BATCH) * torch.linspace(-1, 2, BATCH.n_trained)).sum()
    with Count() as count:
        loss.backward()
    return count.calls


@pytest.mark.parametrize(("family", "lora"), [("llama", Lora(rank=2, alpha=4)), ("olmo2", None), ("olmoe", None)])
def test_gradients_are_the_same_to_the_bit(family: str, lora: Lora | None, tiny_model: Callable[..., Path]) -> None:
    modes: tuple[Recompute, ...] = (False, True, "selective")
    policies = [Policy.load(tiny_model(family), lora=lora, gradient_checkpointing=mode) for mode in modes]
    for policy in policies:
        backward(policy)
    whole, *others = [gradients(policy.model) for policy in policies]
    assert any(gradient.any() for gradient in whole.values())
    for found in others:
        assert largest_difference(found, whole) == 0.0


def test_selective_checkpointing_keeps_attention_and_every_second_product(tiny_model: Callable[..., Path]) -> None:
    """A layer of Llama takes seven products: queries, keys, values, output, gate, up and down, of which three are kept. Nobody
    needs the last one again but in the last layer, where the positions that are read are put back behind it."""
    plain, layers, selective = (
        backward(Policy.load(tiny_model("llama"), gradient_checkpointing=mode)) for mode in (False, True, "selective")
    )
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    segments = 3 - 1  # one of the completions looks back at its prompt, and has a mask
    assert plain[attention] == selective[attention] == 0
    assert layers[attention] >= 2 * segments
    assert (layers["mm"] - plain["mm"], selective["mm"] - plain["mm"]) == (6 + 7, 3 + 4)
