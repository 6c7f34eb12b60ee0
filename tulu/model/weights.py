"""Weights on their way out: the digest of all of them, and a folder that any library loads."""

from collections.abc import Iterable
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import CheckpointError
from tulu.model.companions import save_companions
from tulu.model.published import saved_config


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of the names, shapes, dtypes and bytes of weights, whatever their order; one weight is read at a time."""
    lines = sorted(f"{name} {_digest(tensor)}" for name, tensor in weights)
    return xxhash.xxh3_128("\n".join(lines).encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    digest = xxhash.xxh3_128(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_model(
    model: PreTrainedModel,
    weights: Iterable[tuple[str, Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    write: bool = True,
) -> None:
    """Write weights, configuration and tokenizer into a folder that transformers, vLLM and TRL load.

    The weights are read to their end and nothing is written where `write` is false. Raises CheckpointError if the disk
    refuses.
    """
    if not write:
        for _ in weights:
            pass
        return
    from huggingface_hub import save_torch_state_dict

    stored = {name: _with_own_storage(tensor.detach().to("cpu", saved_dtype(model, name, tensor))) for name, tensor in weights}
    config = saved_config(model, stored)
    config.dtype = getattr(model, "tulu_saved_dtype", torch.float32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_torch_state_dict(stored, str(folder))
        save_companions(model, config, tokenizer, folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the model could not be written ({error})") from error


def saved_dtype(model: PreTrainedModel, name: str, tensor: Tensor) -> torch.dtype:
    """The dtype that a weight is saved in: the one in which the checkpoint that training started from stores it.

    A few are stored wider than the rest, such as the bias that balances DeepSeek-V3's experts, in float32 beside bfloat16.
    """
    if not tensor.is_floating_point():
        return tensor.dtype
    stored: dict[str, torch.dtype] = getattr(model, "tulu_stored_dtypes", {})
    return stored.get(name, getattr(model, "tulu_saved_dtype", torch.float32))


def _with_own_storage(tensor: Tensor) -> Tensor:
    """The tensor in a storage of its own: ZeRO keeps all weights in one buffer, which safetensors takes for tied weights."""
    contiguous = tensor.contiguous()
    alone = contiguous.untyped_storage().nbytes() == contiguous.nbytes
    return contiguous if alone else contiguous.clone()
