"""The policy: a model, its tokenizer and its chat template; every stage asks it for the log-probs of a batch."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from tulu.config.job import ADAPTERS
from tulu.model.adapters_apart import save_adapters
from tulu.model.batch import Batch
from tulu.model.dropout import start_training
from tulu.model.head import TokenLogps, check_head
from tulu.model.load import LoadOptions, load_model, load_tokenizer
from tulu.model.packed import PackedModel, PackedModule
from tulu.model.published import unwrap


class PolicyModule(PackedModule):
    """Trunk and output head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        causal = unwrap(model)
        self.head = TokenLogps(causal)
        check_head(self.head, causal, self.trunk.model)

    def forward(
        self, batch: Batch, temperature: float = 1.0, entropy: bool = False, entropy_gradient: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(N,) log-probs of the trained tokens, and their (N,) entropies, which are empty unless asked for."""
        logps_N, entropy_N = self.head(self.trunk(batch), batch.target_N, temperature, entropy, entropy_gradient)
        return logps_N, entropy_N


class Policy(PackedModel[PolicyModule]):
    """A causal language model that every stage can ask for log-probs, train, freeze and save."""

    module_class = PolicyModule

    @classmethod
    def load(
        cls, path: str | Path, *, template: str = "tokenizer", trainable: bool = True, **options: Unpack[LoadOptions]
    ) -> "Policy":
        """A policy from a folder or a hub name: float32 weights that train, or frozen ones in the given precision.

        Raises RecipeError if there is no such model, or if its tokenizer has no template and none is named.
        """
        tokenizer = load_tokenizer(path, template, options.get("revision"), options.get("trust_remote_code", False))
        policy = cls(load_model(AutoModelForCausalLM, path, tokenizer=tokenizer, trainable=trainable, **options), tokenizer)
        if trainable:
            start_training(policy.module)
        else:
            policy.module.eval()
        return policy

    def logps(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """(N,) float32 log-probs of the batch's trained tokens under softmax(logits / temperature)."""
        logps_N: Tensor = self.runner(batch.to(self.device), temperature, False)[0]
        return logps_N

    def logps_and_entropy(self, batch: Batch, temperature: float = 1.0, entropy_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """(N,) float32 log-probs as `logps` gives them, and (N,) entropies in nats, which carry no gradient unless asked to."""
        logps_N, entropy_N = self.runner(batch.to(self.device), temperature, True, entropy_gradient)
        return logps_N, entropy_N

    def save(self, folder: Path, write: bool = True) -> None:
        """Write a plain Hugging Face folder, adapters merged, and these by themselves below it. All ranks call it and one writes.

        Raises CheckpointError or OSError if the disk refuses.
        """
        super().save(folder, write)
        save_adapters(self.module.model, folder / ADAPTERS, write)

    def without_adapter(self) -> AbstractContextManager[Any]:
        """While the context lasts, a policy that trains adapters answers as the model it started from."""
        model: Any = self.module.model
        return model.disable_adapter() if hasattr(model, "peft_config") else nullcontext()
