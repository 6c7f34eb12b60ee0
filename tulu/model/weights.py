"""Weights as the world knows them: published names with adapters merged, their digest, and a folder that any library loads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import CheckpointError
from tulu.model.companions import save_companions
from tulu.model.parallel import whole
from tulu.model.private_state import is_sharded, to_published_weights


def unwrap(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside its adapters; a model without adapters is returned as it is."""
    outer: Any = model
    inner: PreTrainedModel = outer.get_base_model() if hasattr(outer, "peft_config") else outer
    return inner


def published_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight as the published checkpoint has it: adapters merged, fused experts taken apart."""
    yield from to_published_weights(unwrap(model), dict(_merged_weights(model))).items()


def _merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every parameter of the transformers model, its adapter's product added and its shards gathered."""
    inner = unwrap(model)
    layers: dict[str, Any] = {}
    if inner is not model:
        from peft.tuners.lora import LoraLayer

        layers = {f"{name}.base_layer.weight": module for name, module in inner.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in inner.named_parameters():
        if ".lora_" in name:
            continue
        tensor = _gather(parameter)
        if name in layers:
            layer = layers[name]
            tensor = tensor + sum(layer.get_delta_weight(adapter).to(tensor.dtype) for adapter in layer.active_adapters)
        yield name.replace(".base_layer.", "."), tensor


def _gather(parameter: nn.Parameter) -> Tensor:
    """All entries of a parameter; a copy of them where ZeRO-3 sharded it."""
    with whole(parameter) as gathered:
        return gathered.detach().clone() if is_sharded(parameter) else gathered.detach()


def weights_digest(weights: Iterator[tuple[str, Tensor]]) -> str:
    """Hash of the names, shapes, dtypes and bytes of weights, whatever their order."""
    digest = xxhash.xxh3_128()
    for name, tensor in sorted(weights, key=lambda item: item[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(
    model: PreTrainedModel, weights: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, folder: Path, write: bool = True
) -> None:
    """Write weights, configuration and tokenizer into a folder that transformers, vLLM and TRL load.

    Nothing is written where `write` is false. Raises CheckpointError if the disk refuses.
    """
    if not write:
        return
    from huggingface_hub import save_torch_state_dict

    dtype = getattr(model, "tulu_saved_dtype", torch.float32)
    stored = {name: _with_own_storage(tensor.detach().to("cpu", dtype)) for name, tensor in weights.items()}
    config = type(model.config).from_dict(model.config.to_dict())
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(stored, str(folder))
        save_companions(model, config, tokenizer, folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the model could not be written ({error})") from error


def _with_own_storage(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own: ZeRO keeps all weights in one buffer, which safetensors takes for tied weights."""
    contiguous = tensor.contiguous()
    alone = contiguous.untyped_storage().nbytes() == contiguous.nbytes
    return contiguous if alone else contiguous.clone()
