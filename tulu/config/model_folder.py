"""Why a folder cannot be used as a model, read from its listing, its config.json and the headers of its weights; no torch.

Each `..._problem` returns what is wrong, as the end of a sentence that begins with the folder, or None.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tulu.errors import nearest

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Files that say in which shard each weight lies."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
"""Files of which a folder with a tokenizer has one."""
_LONGEST_HEADER = 100 << 20
"""Bytes. The safetensors format allows no longer header."""


def missing_folder(name: str) -> str:
    """What is wrong with the path of a model that is not there, with the folder that was probably meant."""
    path = Path(name)
    if path.name == "model" and (path.parent / "recipe.yaml").is_file():
        return f"no such folder: the stage of {path.parent} has not finished; run `tulu {path.parent.name}` of its recipe again"
    siblings = [folder.name for folder in path.parent.iterdir() if folder.is_dir()] if path.parent.is_dir() else []
    return f"no such folder (looked from {Path.cwd()}){nearest(path.name, siblings)}; correct the path"


def folder_problem(folder: Path) -> str | None:
    """What is wrong with a folder that is to hold a model: another kind of folder, or a config.json that cannot be read."""
    if not (folder / "config.json").is_file():
        return _another_kind(folder)
    config = read_config(folder)
    if config is None:
        return "has a config.json that is no JSON object; copy the model again"
    if (folder / "adapter_config.json").is_file():
        return _adapter_problem(folder)
    if "model_type" not in config and "auto_map" not in config:
        return "has a config.json without model_type; name a folder that save_pretrained of transformers wrote"
    return None


def read_config(folder: Path) -> Mapping[str, Any] | None:
    """The contents of a folder's config.json; None where they are no JSON object."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, Mapping) else None


def _another_kind(folder: Path) -> str:
    """What a folder without config.json is, and which one was meant."""
    names = sorted(entry.name for entry in folder.iterdir())
    if "adapter_config.json" in names:
        return _adapter_problem(folder)
    if folder.parent.name == "checkpoints" and folder.name.startswith("step-"):
        return f"is a checkpoint to resume a run from, and no model; run `tulu {folder.parents[1].name}` of its recipe to the end"
    inner = [*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")]
    if len(inner) == 1:
        return f"is a folder without config.json; did you mean {inner[0].parent}?"
    if "recipe.yaml" in names and "manifest.json" in names:
        return f"is a run that has not finished, so it has no model yet; run `tulu {folder.name}` of its recipe again"
    gguf = [name for name in names if name.lower().endswith(".gguf")]
    if gguf:
        return f"holds GGUF files alone ({gguf[0]}), which are only read to answer; name the checkpoint that they were made from"
    empty = "" if names else " (it is empty)"
    return f"is a folder without config.json{empty}; name a Hugging Face model folder"


def _adapter_problem(folder: Path) -> str:
    """Says how the adapters of PEFT become a model."""
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        base = None
    merged = f"{folder}-merged"
    # The tokenizer beside adapters is the one that they were trained with; that of their base may lack the chat template.
    tokenizer = folder if (folder / "tokenizer_config.json").is_file() else base or "BASE"
    beside = (
        "beside a whole model, which would be loaded with them; remove adapter_config.json to have it without, or"
        if has_weights(folder)
        else "and no whole model;"
    )
    return (
        f"holds LoRA adapters (adapter_config.json) of {base or 'a model that it does not name'}, {beside} "
        f"merge them, and name {merged}:\n"
        f'  python -c "from peft import AutoPeftModelForCausalLM as Model; from transformers import AutoTokenizer as Tokenizer; '
        f"Model.from_pretrained('{folder}').merge_and_unload().save_pretrained('{merged}'); "
        f"Tokenizer.from_pretrained('{tokenizer}').save_pretrained('{merged}')\""
    )


def has_weights(folder: Path) -> bool:
    """Whether a folder holds a file of weights, whole or in shards."""
    files = {file.name for pattern in ("*.safetensors", "pytorch_model*.bin") for file in folder.glob(pattern)}
    return bool(files - {"adapter_model.safetensors"})


def weights_problem(folder: Path) -> str | None:
    """What is wrong with the files of a model's weights: there are none, a shard is missing, or one was cut short."""
    for index in (folder / name for name in INDEXES):
        if index.is_file() and (problem := _index_problem(folder, index)) is not None:
            return problem
    if not has_weights(folder):
        return "has no weights (*.safetensors or pytorch_model*.bin); copy all files of the model"
    for file in sorted(folder.glob("*.safetensors")):
        if (problem := _safetensors_problem(file)) is not None:
            return f"{problem}; copy this file again"
    empty = next((file.name for file in sorted(folder.glob("pytorch_model*.bin")) if not file.stat().st_size), None)
    return f"has an empty {empty}; copy this file again" if empty else None


def _index_problem(folder: Path, index: Path) -> str | None:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"has a {index.name} that cannot be read; copy this file again"
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    if not absent:
        return None
    named = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
    return f"lacks {len(absent)} of {len(shards)} shards of its weights ({named}); copy what is missing"


def _safetensors_problem(file: Path) -> str | None:
    """What a file's header and size tell: eight bytes of length, a JSON header with the place of each tensor, the tensors."""
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > min(size, _LONGEST_HEADER):
                raise ValueError("the header is longer than the file")
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return f"has a {file.name} ({size:,} bytes) that is no safetensors file, or was cut short"
    if size != whole:
        return f"has a {file.name} that was {'cut short' if size < whole else 'damaged'}: {size:,} bytes of {whole:,}"
    return None


def tokenizer_problem(folder: Path) -> str | None:
    """What is wrong with a folder that is to hold a tokenizer."""
    names = {entry.name for entry in folder.iterdir()}
    if names & set(TOKENIZER_FILES) or any(name.endswith((".model", ".tiktoken")) for name in names):
        return None
    return "has no tokenizer (tokenizer.json, tokenizer_config.json); copy these files of the model that it was made from into it"


def quantised_problem(config: Mapping[str, Any]) -> str | None:
    """Why a quantised checkpoint cannot be trained, and what to do about it."""
    settings = config.get("quantization_config") or config.get("compression_config")
    if not settings:
        return None
    method = settings.get("quant_method") or "bitsandbytes"
    method += "".join(f" {bits}" for bits in ("4bit", "8bit") if settings.get(f"load_in_{bits}"))
    cure = "name the checkpoint that it was made from, which is not quantised"
    if method in ("mxfp4", "fp8"):
        # Without save_original_format=False, transformers 5.19 writes names such as `down_proj$`, which load as random weights.
        kind = {"mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config"}[method]
        cure += (
            f", or write one in bf16, and name FOLDER:\n"
            f'  python -c "from transformers import AutoModelForCausalLM as Model, AutoTokenizer as Tokenizer, {kind}; '
            f"Model.from_pretrained('MODEL', dtype='bfloat16', quantization_config={kind}(dequantize=True))"
            ".save_pretrained('FOLDER', save_original_format=False); "
            "Tokenizer.from_pretrained('MODEL').save_pretrained('FOLDER')\""
        )
    return f"is quantised ({method}), and quantised weights are not trained; {cure}"


def causal_problem(config: Mapping[str, Any]) -> str | None:
    """Why a model is no language model that writes one token after the other, as far as its configuration tells."""
    kind = str((config.get("architectures") or [config.get("model_type", "nothing")])[0])
    if config.get("is_encoder_decoder"):
        return f"is an encoder-decoder model ({kind}); name a causal language model, such as OLMo 2, Llama or Qwen"
    for part in ("vision_config", "audio_config"):
        if config.get(part):
            sense = part.removesuffix("_config")
            return f"reads {sense} too ({kind} has a {part}), and text alone is trained here; name its text-only checkpoint"
    if kind.endswith(("ForMaskedLM", "ForQuestionAnswering", "ForTokenClassification")):
        return f"reads in both directions ({kind}); name a causal language model, such as OLMo 2, Llama or Qwen"
    return None
