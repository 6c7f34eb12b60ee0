"""Why transformers does not load a checkpoint, in words that say what it is and what to do about it."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from transformers.utils.peft_utils import find_adapter_config_file

from tulu.errors import RecipeError, first_few

CURE = "Give a model folder, or a hub name that is reachable."
CURE_OF_FOLDER = "Correct its files, or copy or download the model again."
MOST = 300
"""Characters of an error of transformers that a message repeats."""
ADAPTERS = (
    "holds LoRA adapters (adapter_config.json), and is no whole model\n"
    "Merge them with peft (AutoPeftModelForCausalLM, merge_and_unload), save model and tokenizer, and name that folder."
)
KINDS = {
    "AutoModelForCausalLM": "no causal language model of this kind; name one, such as OLMo 2, Llama or Qwen",
    "AutoModelForSequenceClassification": "no reward model of this kind; name a model of another architecture",
}
"""What transformers says of an architecture by refusing it, by the auto class that was asked."""


def explain(auto_class: Any, path: str | Path, revision: str | None, error: Exception) -> RecipeError:
    """The error that a person is told in place of one that transformers raised while it loaded `path`."""
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return RecipeError(
            f"{path}: needs code of its own, which would run on this machine (auto_map in its configuration)\n"
            "Read that code, and if you trust it set trust_remote_code: true in the recipe, or --trust-remote-code; "
            "a revision pins what you have read."
        )
    if "Unrecognized configuration class" in text and auto_class.__name__ in KINDS:
        kind = text.split("class", 1)[1].split("for this kind")[0].strip().split(".")[-1].strip("'> ")
        return RecipeError(f"{path}: transformers has {KINDS[auto_class.__name__]} ({kind})")
    if isinstance(error, OSError) and not Path(path).exists() and _is_adapter(path, revision, asking="config.json" in text):
        return RecipeError(f"{path}: {ADAPTERS}")
    if names := _unjoined(error):
        return RecipeError(
            f"{path}: of the parts that are joined to one weight, such as the experts of a layer, some are missing or have "
            f"another shape: {first_few(names)}\n{CURE_OF_FOLDER}"
        )
    what = "tokenizer" if auto_class.__name__ == "AutoTokenizer" else "model"
    # What the hub's errors say first is enough; the cause of others may come last.
    reason = text.splitlines()[0] if isinstance(error, OSError) else " ".join(text.split())[:MOST]
    if " " not in reason:
        # A KeyError says no more than the key.
        reason = f"{type(error).__name__}: {reason}"
    cure = CURE_OF_FOLDER if Path(path).is_dir() else CURE
    return RecipeError(f"{path}: cannot be loaded as a {what} ({reason}){_meant(path)}\n{cure}")


def _unjoined(error: Exception) -> list[str]:
    """The weights that transformers could not make of several in the checkpoint; its error names none of them."""
    trace = error.__traceback__
    while trace is not None:
        report = trace.tb_frame.f_locals.get("loading_info")
        if failed := getattr(report, "conversion_errors", None):
            return sorted(map(str, failed))
        trace = trace.tb_next
    return []


def _is_adapter(path: str | Path, revision: str | None, asking: bool) -> bool:
    """Whether a repository that lacks config.json has adapters of PEFT, by the cache, or `asking` the hub."""
    try:
        return find_adapter_config_file(str(path), revision=revision, local_files_only=not asking) is not None
    except (OSError, ValueError):
        return False


def _meant(path: str | Path) -> str:
    """The folder here that a name may stand for, which is then taken for one on the hub."""
    here = Path(path)
    if here.exists():
        return ""
    siblings = [folder.name for folder in here.parent.iterdir() if folder.is_dir()] if here.parent.is_dir() else []
    match = get_close_matches(here.name, siblings, n=1)
    return f"; did you mean {here.parent / match[0]}?" if match else ""
