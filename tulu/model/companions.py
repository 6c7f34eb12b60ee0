"""What is saved beside a model's weights: configuration, generation settings, tokenizer, and the model's own code."""

import shutil
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.dynamic_module_utils import custom_object_save

from tulu.errors import RecipeError
from tulu.model.generation import save_generation_config


def save_companions(model: PreTrainedModel, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write everything but the weights into a folder. Raises OSError where the disk refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    if model.is_remote_code():
        custom_object_save(model, folder, config=config)  # type: ignore[arg-type]
    save_generation_config(model, tokenizer, folder)
    _save_tokenizer(tokenizer, folder)


def rehearse_saving(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write what is saved beside the weights into a folder, and remove it: what can only fail at the end is tried at the start.

    Raises RecipeError with the reason where it cannot be saved.
    """
    try:
        save_companions(model, model.config, tokenizer, folder)
    except OSError:
        # A full disk is no property of the model.
        raise
    except Exception as error:
        # Whatever it is, it would come again after the training, and cost all of it.
        raise RecipeError(
            f"{model.config.name_or_path or 'the model'}: its configuration or its tokenizer cannot be saved ({error})\n"
            "It would fail after the training as it does now. Mend these files of the starting model, and run the command again."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save the tokenizer. Raises OSError where the disk refuses, for which tokenizers has no exception class of its own."""
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:
        # Such as "No space left on device (os error 28)".
        if "(os error" not in str(error):
            raise
        raise OSError(str(error)) from error
