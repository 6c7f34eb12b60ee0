"""`tulu export RUN FOLDER`: a trained model as a folder of its own, or its adapters by themselves."""

import shutil
from pathlib import Path

import typer

from tulu.commands.model_card import find_stage, model_card
from tulu.config.job import ADAPTERS, MODEL
from tulu.errors import RecipeError
from tulu.files import make_folder, no_place, sync_folder

_COMPANIONS = ("tokenizer*", "chat_template*", "special_tokens_map.json")


def export(run: str, folder: Path, runs: Path, adapters: bool) -> None:
    """Copy a model with its card, merged weights or adapters alone, into a folder that is not there yet.

    Raises RecipeError where there is no such model, it is damaged, or the folder is taken.
    """
    folder = folder.resolve()
    stage = find_stage(run, runs)
    model = stage.folder / MODEL
    from tulu.train.model_files import model_faults

    if faults := model_faults(model):
        raise RecipeError(f"{model}: is damaged ({'; '.join(faults)}); run its stage again, which writes it anew")
    if adapters and not (model / ADAPTERS).is_dir():
        raise RecipeError(f"{model}: has no adapters; it was trained without lora. Leave --adapters out")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder}: is not empty; name another folder")
    partial = _make_partial(folder)
    source = model / ADAPTERS if adapters else model
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns(ADAPTERS), dirs_exist_ok=True)
    if adapters:
        for pattern in _COMPANIONS:
            for file in model.glob(pattern):
                shutil.copy2(file, partial)
    card = model_card(stage, (partial, folder.name) if adapters else None)
    (partial / "README.md").write_text(card, encoding="utf-8")
    sync_folder(partial)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    typer.echo(f"{folder}: {'adapters of' if adapters else 'merged weights of'} {stage.folder}")


def _make_partial(folder: Path) -> Path:
    """An empty folder beside another one, whose name it gets when all of it is written. Raises RecipeError."""
    make_folder(folder.parent)
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
    except OSError as error:
        raise no_place(folder, error, "FOLDER") from error
    return partial
