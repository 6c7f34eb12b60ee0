"""Loading: the one way from a model folder or a hub name to a model that trains, or is frozen, and to its tokenizer."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from tulu.config.schema import Lora
from tulu.data.chat import apply_template
from tulu.errors import RecipeError

log = logging.getLogger("tulu")
if not sys.stderr.isatty():
    # The progress bar of transformers helps on a terminal and fills a log with noise.
    disable_progress_bar()

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
ALIGNMENT = 64
"""Bytes. What torch allocates by itself on a CPU begins at a multiple of it."""


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def from_pretrained(auto_class: Any, path: str | Path, **options: Any) -> Any:
    """`auto_class.from_pretrained`, with one RecipeError where there is nothing to load."""
    try:
        return auto_class.from_pretrained(str(path), **options)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        cure = "Give a model folder, or a hub name that is reachable."
        raise RecipeError(f"{path}: cannot be loaded as a model ({reason})\n{cure}") from error


def load_tokenizer(path: str | Path, template: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model with the recipe's chat template set on it."""
    tokenizer = from_pretrained(AutoTokenizer, path, revision=revision)
    apply_template(tokenizer, template)
    return tokenizer


def hub_commit(name: str, revision: str | None = None) -> str:
    """The commit of a model on the hub that a revision, or its main branch, stands for. Raises RecipeError if there is none."""
    from_pretrained(AutoConfig, name, revision=revision)
    # The cache of the hub keeps every file at snapshots/COMMIT/FILE.
    return Path(hf_hub_download(name, "config.json", revision=revision)).parent.name


class LoadOptions(TypedDict, total=False):
    """The settings of `load_model` that policies and reward models pass on."""

    precision: str
    revision: str | None
    lora: Lora | None
    gradient_checkpointing: bool


def load_model(
    auto_class: Any,
    path: str | Path,
    *,
    precision: str = "fp32",
    revision: str | None = None,
    trainable: bool = False,
    lora: Lora | None = None,
    gradient_checkpointing: bool = False,
    prepare: Callable[[Any, set[str]], None] | None = None,
    **options: Any,
) -> Any:
    """A model of one of transformers' auto classes from a folder or a hub name, inside its adapters where `lora` is given.

    One that trains has float32 weights, a frozen one has the given precision. `prepare(model, missing)` is called before the
    adapters are added, with the names of the weights that the checkpoint lacks. Further options go to `from_pretrained`.
    Raises RecipeError if there is no such model.
    """
    dtype = torch.float32 if trainable else DTYPES[precision]
    model, loading = from_pretrained(auto_class, path, revision=revision, dtype=dtype, output_loading_info=True, **options)
    # The model is saved in the dtype that its checkpoint was stored in.
    model.tulu_saved_dtype = stored_dtype(path, revision)
    if prepare is not None:
        prepare(model, set(loading["missing_keys"]))
    if gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    adapted = add_adapters(model, lora) if lora else model
    if not trainable:
        adapted.requires_grad_(False)
    elif lora and lora.dropout:
        log.info("lora.dropout %g acts on the adapters of %s while they train; every other dropout is off", lora.dropout, path)
    return adapted


def stored_dtype(path: str | Path, revision: str | None = None) -> torch.dtype:
    """The dtype that a checkpoint says it is stored in; float32 where it says none."""
    dtype = from_pretrained(AutoConfig, path, revision=revision).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def add_adapters(model: PreTrainedModel, lora: Lora) -> nn.Module:
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


def align(model: nn.Module) -> None:
    """Move weights that were mapped from a file to addresses that torch itself would choose.

    Small matrix products round differently by address, and a model that was saved and loaded should give the same bits.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()
