"""What a policy and a reward model share: a transformers model with a tokenizer, whose forward passes read packed batches."""

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tulu.model.companions import rehearse_saving
from tulu.model.devices import default_device
from tulu.model.dropout import disable_dropout
from tulu.model.kernel_choice import adopt_kernels
from tulu.model.load import align
from tulu.model.published import published_shapes, published_weights, unwrap
from tulu.model.trunk import Trunk
from tulu.model.weights import save_model, weights_digest


class PackedModule(nn.Module):
    """Trunk and head as the one module that is sharded, wrapped and checkpointed; a subclass adds the head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.trunk = Trunk(unwrap(model))


M = TypeVar("M", bound=PackedModule)


class PackedModel(Generic[M]):
    """A model that every stage can train, freeze and save."""

    module_class: type[M]

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, device: torch.device | None = None) -> None:
        self.model = unwrap(model)
        self.tokenizer = tokenizer
        self.device = device or default_device()
        disable_dropout(self.model)
        align(model)
        self.module = self.module_class(model.to(self.device))
        self.runner: nn.Module = self.module
        """What forward passes go through: the module, or what Accelerate made of it."""
        self.module.trunk.adopt_segments()
        adopt_kernels(self.module.trunk)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every weight as published, adapters merged; every rank must iterate, and gets the same."""
        yield from published_weights(self.module.model)

    def digest(self) -> str:
        """Hash of all weights, by content."""
        return weights_digest(self.weights())

    def rehearse_saving(self, folder: Path) -> None:
        """Save into `folder` what is saved beside the weights, and remove it again. Raises RecipeError where that cannot be."""
        rehearse_saving(self.model, self.tokenizer, folder)

    def save(self, folder: Path, write: bool = True) -> None:
        """Write a plain Hugging Face folder. All ranks call it and one writes. Raises CheckpointError if the disk refuses."""
        save_model(self.model, published_shapes(self.module.model), self.weights(), self.tokenizer, folder, write)
