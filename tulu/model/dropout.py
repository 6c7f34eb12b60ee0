"""Where dropout is on: in LoRA adapters that train, by the recipe's `lora.dropout`, and nowhere else.

Log-probs must be a function of the weights, since ratios, references and resumed runs all rest on that. A model is therefore
in evaluation mode even while it trains: dropout is not the only noise of training mode, in which PhiMoE draws its experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

ADAPTER_DROPOUT = "lora_dropout"
"""peft's name for the dropout on the input of an adapter."""

DROPOUTS = ("dropout", "layerdrop")
"""What attributes are called by which architectures drop activations or whole layers without a module of its own."""


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of the model to 0, except that of its adapters."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and ADAPTER_DROPOUT not in name.split("."):
            module.p = 0.0
        for attribute, value in vars(module).items():
            if isinstance(value, float) and any(part in attribute for part in DROPOUTS):
                vars(module)[attribute] = 0.0


def start_training(model: nn.Module) -> None:
    """Switch training mode on, where it means the dropout of adapters or that activations are computed twice to save memory."""
    model.eval()
    for name, module in model.named_modules():
        if not name or ADAPTER_DROPOUT in name.split(".") or getattr(module, "gradient_checkpointing", False):
            module.training = True


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
