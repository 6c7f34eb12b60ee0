"""The policy: a model, its tokenizer and its chat template; every stage asks it for the log-probs of a batch."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Unpack

from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from tulu.errors import RecipeError
from tulu.model.batch import Batch
from tulu.model.load import LoadOptions, load_model, load_tokenizer
from tulu.model.logprobs import token_logps
from tulu.model.packed import PackedModel, PackedModule
from tulu.model.weights import unwrap


class TokenLogps(nn.Module):
    """The output head, read where a token is trained; it shares its weight with the model's own head.

    It is a module because ZeRO-3 gathers a weight for the forward and backward pass of the module that owns it.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = head.bias

    def forward(self, hidden_NH: Tensor, target_N: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
        return token_logps(hidden_NH, self.weight, target_N, bias_V=self.bias, temperature=temperature, entropy=entropy)


class PolicyModule(PackedModule):
    """Trunk and output head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        causal = unwrap(model)
        _refuse_scaled_logits(causal)
        self.head = TokenLogps(causal.get_output_embeddings())

    def forward(self, batch: Batch, temperature: float = 1.0, entropy: bool = False) -> tuple[Tensor, Tensor]:
        """(N,) log-probs of the trained tokens, and their (N,) entropies, which are empty unless asked for."""
        logps_N, entropy_N = self.head(self.trunk(batch), batch.target_N, temperature, entropy)
        return logps_N, entropy_N


def _refuse_scaled_logits(model: PreTrainedModel) -> None:
    """Raise RecipeError if the model caps or scales its logits, which `token_logps` would leave out silently."""
    config = model.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise RecipeError(f"{type(model).__name__} scales its logits ({name}), which this version does not train")


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
        policy.module.train(trainable)
        return policy

    def logps(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """(N,) float32 log-probs of the batch's trained tokens under softmax(logits / temperature)."""
        logps_N: Tensor = self.runner(batch.to(self.device), temperature, False)[0]
        return logps_N

    def logps_and_entropy(self, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """(N,) float32 log-probs as `logps` gives them, and (N,) entropies in nats, which carry no gradient."""
        logps_N, entropy_N = self.runner(batch.to(self.device), temperature, True)
        return logps_N, entropy_N

    def without_adapter(self) -> AbstractContextManager[Any]:
        """While the context lasts, a policy that trains adapters answers as the model it started from."""
        model: Any = self.module.model
        return model.disable_adapter() if hasattr(model, "peft_config") else nullcontext()
