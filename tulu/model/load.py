"""Loading: the one way from a model folder or a hub name to a model that trains, or is frozen, and to its tokenizer."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from tulu.config.hub import reach_hub
from tulu.config.locate import model_problem
from tulu.config.model_folder import causal_problem, folder_problem, quantised_problem, tokenizer_problem, weights_problem
from tulu.config.schema import Lora
from tulu.config.shortage import is_shortage
from tulu.data.chat import apply_template
from tulu.errors import RecipeError
from tulu.model.adapters import add_adapters
from tulu.model.embeddings import fit_embeddings
from tulu.model.fidelity import check_loaded, check_saving
from tulu.model.masters import DTYPES
from tulu.model.quiet import quiet
from tulu.model.recompute import Recompute, enable_recompute
from tulu.model.refusals import ADAPTERS, KINDS, explain
from tulu.model.spreading import spread_as_loaded

log = logging.getLogger("tulu")
if not sys.stderr.isatty():
    # The progress bar of transformers helps on a terminal and fills a log with noise.
    disable_progress_bar()

ALIGNMENT = 64
"""Bytes. What torch allocates by itself on a CPU begins at a multiple of it."""


def from_pretrained(auto_class: Any, path: str | Path, *, trust_remote_code: bool = False, **options: Any) -> Any:
    """`auto_class.from_pretrained`, with one RecipeError that says what `path` is where there is nothing to load.

    transformers is always told whether to run code of the checkpoint: otherwise it would ask on the terminal. Its table of
    missing and unexpected weights is silenced, because whoever loads a model is told of them in one message (`check_loaded`).
    """
    if problem := model_problem(str(path)):
        raise RecipeError(f"{path}: {problem}")
    if not Path(path).is_dir():
        reach_hub()
    return _read(auto_class, path, trust_remote_code=trust_remote_code, **options)


def _read(auto_class: Any, path: str | Path, *, trust_remote_code: bool, **options: Any) -> Any:
    """`auto_class.from_pretrained`, whatever else lies in the folder. Raises RecipeError."""
    try:
        with quiet():
            return auto_class.from_pretrained(str(path), trust_remote_code=trust_remote_code, **options)
    except Exception as error:
        if is_shortage(error):
            raise
        # A file that somebody else wrote may be wrong in any way, and transformers has no error of its own for that.
        raise explain(auto_class, path, options.get("revision"), error) from error


def load_tokenizer(
    path: str | Path,
    template: str,
    revision: str | None = None,
    trust_remote_code: bool = False,
    pinned: str | None = None,
    *,
    beside_adapters: bool = False,
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model with the recipe's chat template set on it; `pinned` is the hash that the template must have.

    Raises RecipeError where the folder holds no whole model, unless the tokenizer is meant that lies beside adapters.
    """
    folder = Path(path)
    incomplete = folder_problem(folder) if folder.is_dir() and not beside_adapters else None
    if folder.is_dir() and (problem := incomplete or tokenizer_problem(folder)):
        raise RecipeError(f"{path}: {problem}")
    load = _read if beside_adapters else from_pretrained
    tokenizer = load(AutoTokenizer, path, revision=revision, trust_remote_code=trust_remote_code)
    apply_template(tokenizer, template, pinned)
    return tokenizer


def checked_config(
    path: str | Path, *, trainable: bool, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """The configuration of a model whose files are complete, and which can be trained if it is to be.

    Raises RecipeError where a file is missing or cut short, or where a model that is to be trained is quantised or no causal
    language model. Only the configuration and the headers of the weights are read, so it can be asked before any data is.
    """
    config: PreTrainedConfig = from_pretrained(AutoConfig, path, revision=revision, trust_remote_code=trust_remote_code)
    problem = weights_problem(Path(path)) if Path(path).is_dir() else None
    if trainable and problem is None:
        fields = {**config.to_dict(), "architectures": config.architectures, "is_encoder_decoder": config.is_encoder_decoder}
        problem = quantised_problem(fields) or causal_problem(fields)
        if problem is None and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING and not getattr(config, "auto_map", None):
            problem = f"is a {config.model_type} model: transformers has {KINDS['AutoModelForCausalLM']}"
    if problem is not None:
        raise RecipeError(f"{path}: {problem}")
    return config


def hub_commit(name: str, revision: str | None = None, trust_remote_code: bool = False) -> str:
    """The commit of a model on the hub that a revision, or its main branch, stands for. Raises RecipeError if there is none."""
    from_pretrained(AutoConfig, name, revision=revision, trust_remote_code=trust_remote_code)
    # The cache of the hub keeps every file at snapshots/COMMIT/FILE.
    reach_hub()
    return Path(hf_hub_download(name, "config.json", revision=revision)).parent.name


class Origin(TypedDict, total=False):
    """How a checkpoint is read, be it to train it or to freeze it."""

    revision: str | None
    trust_remote_code: bool
    resize_embeddings: bool


class LoadOptions(Origin, total=False):
    """The settings of `load_model` that policies and reward models pass on."""

    precision: str
    lora: Lora | None
    gradient_checkpointing: Recompute


def load_model(
    auto_class: Any,
    path: str | Path,
    *,
    precision: str = "fp32",
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
    resize_embeddings: bool = False,
    trainable: bool = False,
    lora: Lora | None = None,
    gradient_checkpointing: Recompute = False,
    prepare: Callable[[Any, set[str]], set[str] | None] | None = None,
    **options: Any,
) -> Any:
    """A model of one of transformers' auto classes from a folder or a hub name, inside its adapters where `lora` is given.

    One that trains has float32 weights, a frozen one has the given precision. Its embeddings are compared with `tokenizer`.
    `prepare(model, missing)` is called before the adapters are added, with the names of the weights that the checkpoint lacks,
    and may return those that it made anew. Further options go to `from_pretrained`. Raises RecipeError if there is no such
    model, if its weights are not the checkpoint's, or if it trains and would not be saved as it is.
    """
    checked_config(path, trainable=trainable, revision=revision, trust_remote_code=trust_remote_code)
    dtype = torch.float32 if trainable else DTYPES[precision]
    # What does not match is told by `check_loaded`, with the names, and not by transformers' own message.
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    origin: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with spread_as_loaded(dtype):
        model, loading = from_pretrained(auto_class, path, dtype=dtype, **origin, **report, **options)
    if hasattr(model, "peft_config"):
        raise RecipeError(f"{path}: {ADAPTERS}")
    check_loaded(path, model, loading)
    # The model is saved in the dtype that its checkpoint was stored in.
    model.tulu_saved_dtype = stored_dtype(path, revision, trust_remote_code)
    if tokenizer is not None:
        fit_embeddings(model, tokenizer, resize_embeddings, lora)
    fresh = (prepare(model, set(loading["missing_keys"])) if prepare is not None else None) or set()
    enable_recompute(model, gradient_checkpointing)
    adapted = add_adapters(model, lora) if lora else model
    if trainable:
        check_saving(adapted, path, revision, fresh)
    if not trainable:
        adapted.requires_grad_(False)
    elif lora and lora.dropout:
        log.info("lora.dropout %g acts on the adapters of %s while they train; every other dropout is off", lora.dropout, path)
    return adapted


def stored_dtype(path: str | Path, revision: str | None = None, trust_remote_code: bool = False) -> torch.dtype:
    """The dtype that a checkpoint says it is stored in; float32 where it says none."""
    dtype = from_pretrained(AutoConfig, path, revision=revision, trust_remote_code=trust_remote_code).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def align(model: nn.Module) -> None:
    """Move weights that were mapped from a file to addresses that torch itself would choose.

    Small matrix products round differently by address, and a model that was saved and loaded should give the same bits.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % ALIGNMENT:
            parameter.data = parameter.data.clone()
