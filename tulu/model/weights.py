"""Weights on their way out: the digest of all of them, and a folder that any library loads."""

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import xxhash
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tulu.errors import CheckpointError
from tulu.model.companions import save_companions
from tulu.model.published import saved_config
from tulu.model.streamed import Planned, write_streamed


def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of the names, shapes, dtypes and bytes of weights, whatever their order; one weight is read at a time."""
    # `map` lets go of a weight before it asks for the next one, which a loop would not.
    lines = sorted(map(_digest, weights))
    return xxhash.xxh3_128("\n".join(lines).encode()).hexdigest()


def _digest(weight: tuple[str, Tensor]) -> str:
    name, tensor = weight
    digest = xxhash.xxh3_128(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{name} {digest.hexdigest()}"


def save_model(
    model: PreTrainedModel,
    shapes: Mapping[str, Tensor],
    weights: Iterable[tuple[str, Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    write: bool = True,
) -> None:
    """Write weights, configuration and tokenizer into a folder that transformers, vLLM and TRL load.

    `shapes` are tensors like the weights, without values; of the weights themselves one at a time is in memory. They are read to
    their end and nothing is written where `write` is false. Raises CheckpointError if the disk refuses.
    """
    if not write:
        deque(weights, maxlen=0)
        return
    planned = {name: Planned(tuple(shape.shape), saved_dtype(model, name, shape)) for name, shape in shapes.items()}
    config = saved_config(model, planned)
    config.dtype = getattr(model, "tulu_saved_dtype", torch.float32)
    try:
        write_streamed(weights, planned, folder)
        save_companions(model, config, tokenizer, folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: the model could not be written ({error})") from error


def saved_dtype(model: PreTrainedModel, name: str, tensor: Tensor) -> torch.dtype:
    """The dtype that a weight is saved in: the one in which the checkpoint that training started from stores it.

    A few are stored wider than the rest, such as the bias that balances DeepSeek-V3's experts, in float32 beside bfloat16.
    """
    if not tensor.is_floating_point():
        return tensor.dtype
    stored: dict[str, torch.dtype] = getattr(model, "tulu_stored_dtypes", {})
    return stored.get(name, getattr(model, "tulu_saved_dtype", torch.float32))
