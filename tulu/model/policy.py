"""The policy: model, tokenizer and template for every stage, answering for the log-probs of a batch's trained tokens."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils.logging import disable_progress_bar

from tulu.config.schema import Lora
from tulu.data.chat import apply_template
from tulu.errors import CheckpointError, RecipeError
from tulu.model.batch import Batch
from tulu.model.logprobs import token_logps
from tulu.model.trunk import Trunk, align, disable_dropout

log = logging.getLogger("tulu")
if not sys.stderr.isatty():
    # A bar of transformers' own is worth something on a terminal and nothing in a log.
    disable_progress_bar()

DTYPE = {"fp32": torch.float32, "bf16": torch.bfloat16}


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


class TokenLogps(nn.Module):
    """The output head read at trained tokens only; it shares its weight with the model's own head.

    A module of its own, because ZeRO-3 gathers a weight for the forward and backward pass of the module that owns it.
    """

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = head.bias

    def forward(self, hidden_NH: Tensor, target_N: Tensor, temperature: float, entropy: bool) -> tuple[Tensor, Tensor]:
        return token_logps(hidden_NH, self.weight, target_N, bias_V=self.bias, temperature=temperature, entropy=entropy)


class PolicyModule(nn.Module):
    """Trunk and head as the one module that is sharded, wrapped and checkpointed."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        causal = causal_lm(model)
        self.trunk = Trunk(causal)
        self.head = TokenLogps(causal.get_output_embeddings())

    def forward(self, batch: Batch, temperature: float = 1.0, entropy: bool = False) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.head(self.trunk(batch), batch.target_N, temperature, entropy)
        return found


def causal_lm(model: nn.Module) -> PreTrainedModel:
    """The transformers model itself, out of its adapters."""
    inner: Any = model
    found: PreTrainedModel = inner.get_base_model() if hasattr(inner, "peft_config") else inner
    return found


class Policy:
    """A causal language model that every stage can ask for log-probs, train, freeze and save."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, device: torch.device | None = None) -> None:
        self.model = causal_lm(model)
        self.tokenizer = tokenizer
        self.device = device or default_device()
        disable_dropout(self.model)
        align(model)
        self.module = PolicyModule(model.to(self.device))
        self.runner: nn.Module = self.module
        """What forward passes go through: the module, or what Accelerate made of it."""
        self.module.trunk.adopt_segments()
        self._check_head()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        template: str = "tokenizer",
        precision: str = "fp32",
        lora: Lora | None = None,
        gradient_checkpointing: bool = False,
        trainable: bool = True,
        revision: str | None = None,
    ) -> "Policy":
        """A policy from a folder or a hub name: float32 weights to train, or frozen ones in the given precision.

        Raises RecipeError if there is no such model, or its tokenizer has no template and none is named.
        """
        tokenizer = load_tokenizer(path, template, revision)
        dtype = torch.float32 if trainable else DTYPE[precision]
        model = from_pretrained(AutoModelForCausalLM, path, revision=revision, dtype=dtype)
        # What the checkpoint was stored in is what this policy is stored in.
        model.tulu_saved_dtype = stored_dtype(path, revision)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        wrapped = adapted(model, lora) if lora else model
        if not trainable:
            wrapped.requires_grad_(False)
        policy = cls(wrapped, tokenizer)
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
        """The starting weights, while the context lasts, of a policy that trains adapters."""
        model: Any = self.module.model
        return model.disable_adapter() if hasattr(model, "peft_config") else nullcontext()

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight under its published name and shape, adapters merged; the same on every rank."""
        yield from published_weights(self.module.model)

    def digest(self) -> str:
        """Hash of all weights, by content."""
        return weights_digest(self.weights())

    def save(self, folder: Path, write: bool = True) -> None:
        """Write a plain Hugging Face folder. All ranks call it, one writes. Raises CheckpointError if the disk refuses."""
        save_model(self.model, dict(self.weights()), self.tokenizer, folder, write)

    def _check_head(self) -> None:
        """The head must be a linear layer and nothing more: softcaps or logit scales would be left out silently."""
        config = self.model.config.get_text_config()
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(config, name, None) not in (None, 1, 1.0):
                raise RecipeError(f"{type(self.model).__name__} scales its logits ({name}), which this version does not train")


def load_tokenizer(path: str | Path, template: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model with the recipe's chat template set on it."""
    tokenizer = from_pretrained(AutoTokenizer, path, revision=revision)
    apply_template(tokenizer, template)
    return tokenizer


def from_pretrained(auto: Any, path: str | Path, **options: Any) -> Any:
    """`auto.from_pretrained` with one message where there is nothing to load."""
    try:
        return auto.from_pretrained(str(path), **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        cure = "Give a model folder, or a hub name that is reachable."
        raise RecipeError(f"{path}: cannot be loaded as a model ({reason})\n{cure}") from error


def stored_dtype(path: str | Path, revision: str | None = None) -> torch.dtype:
    """The dtype a checkpoint says it is stored in; float32 where it does not say."""
    dtype = from_pretrained(AutoConfig, path, revision=revision).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def adapted(model: PreTrainedModel, lora: Lora) -> nn.Module:
    """The model with trainable low-rank adapters and everything else frozen."""
    from peft import LoraConfig, get_peft_model

    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=["lm_head", "score"],
    )
    # Every process and every session must begin with the same adapters.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return get_peft_model(model, config)


def published_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Weights under the names and shapes of the published checkpoint: adapters merged, fused experts taken apart."""
    yield from revert_weight_conversion(causal_lm(model), dict(_merged(model))).items()


def _merged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters of the transformers model, each with its adapter's product added and its shards gathered."""
    causal = causal_lm(model)
    if causal is model:
        for name, parameter in causal.named_parameters():
            yield name, _full(parameter)
        return
    from peft.tuners.lora import LoraLayer

    layers: dict[str, Any] = {name: module for name, module in causal.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in causal.named_parameters():
        if ".lora_" in name:
            continue
        layer = layers.get(name.removesuffix(".base_layer.weight"))
        full = _full(parameter)
        if layer is not None and name.endswith(".base_layer.weight"):
            full = full + sum(layer.get_delta_weight(adapter).to(full.dtype) for adapter in layer.active_adapters)
        yield name.replace(".base_layer.", "."), full


def _full(parameter: nn.Parameter) -> Tensor:
    """The whole of a parameter that ZeRO-3 may have sharded."""
    if not hasattr(parameter, "ds_id"):
        return parameter.detach()
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameter):
        return parameter.detach().clone()


def weights_digest(weights: Iterator[tuple[str, Tensor]]) -> str:
    """Hash of names, shapes, dtypes and bytes."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(
    model: PreTrainedModel, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, folder: Path, write: bool = True
) -> None:
    """Write weights, configuration and tokenizer so that transformers, vLLM and TRL load the folder."""
    if not write:
        return
    from huggingface_hub import save_torch_state_dict

    dtype = getattr(model, "tulu_saved_dtype", torch.float32)
    stored = {name: _alone(tensor.detach().to("cpu", dtype)) for name, tensor in weights.items()}
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(stored, str(folder))
        config.save_pretrained(folder)
        if model.can_generate():
            model.generation_config.save_pretrained(folder)
        _save_tokenizer(tokenizer, folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the model could not be written ({error})") from error


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """As `save_pretrained`, with an OSError where the disk refuses: tokenizers has no exception of its own for that."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        if "(os error" not in str(error):
            raise
        raise OSError(str(error)) from error


def _alone(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own: ZeRO lays all weights into one buffer, which no file format takes for theirs."""
    own = tensor.contiguous()
    return own if own.untyped_storage().nbytes() == own.nbytes else own.clone()
