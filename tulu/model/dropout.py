"""Where dropout is on: in LoRA adapters that train, by the recipe's `lora.dropout`, and nowhere else.

Log-probs must be a function of the weights, since ratios, references and resumed runs all rest on that. What a model says
when it is not trained is therefore computed in evaluation mode, in which no dropout acts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

ADAPTER_DROPOUT = "lora_dropout"
"""peft's name for the dropout on the input of an adapter."""


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of the model to 0, except that of its adapters."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ADAPTER_DROPOUT not in name.split("."):
            module.p = 0.0
        if "attention_dropout" in vars(module):
            vars(module)["attention_dropout"] = 0.0


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Hold the model in evaluation mode and without gradients while the context lasts; every module gets its mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
