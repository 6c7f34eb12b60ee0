"""Models that a run writes: whole or not at all, with a digest of every file, by which a damaged one is told."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tulu.config.job import KEPT, MODEL
from tulu.errors import CheckpointError, TrainingError
from tulu.files import file_digest, file_fault, sync_folder
from tulu.model.parallel import Parallel
from tulu.train.finite import named_tensors, not_finite_tensors
from tulu.train.manifest import read_manifest

SaveModel = Callable[[Path, bool], None]
"""Writes a model into a folder; all ranks call it, and are told whether they are the one that writes."""


def write_model(folder: Path, save: SaveModel, parallel: Parallel) -> dict[str, list[Any]]:
    """Write a model beside its place, and rename it; returns [bytes, digest] of each file, on the main process.

    Raises TrainingError if a number of the written model is not finite, CheckpointError if the disk refuses.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    written: dict[str, list[Any]] = {}
    try:
        if parallel.is_main:
            folder.parent.mkdir(parents=True, exist_ok=True)
        save(partial, parallel.is_main)
        if names := parallel.exchange(not_finite_tensors(partial) if parallel.is_main else [])[0]:
            shutil.rmtree(partial, ignore_errors=True)
            cure = "Start the stage over with --fresh and a lower learning rate, or from a model of another dtype (bfloat16)."
            raise TrainingError(f"{folder}: not written, its numbers are not finite: {named_tensors(names)}\n{cure}")
        if parallel.is_main:
            sync_folder(partial)
            if folder.exists():
                shutil.rmtree(folder)
            partial.rename(folder)
            files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}
            written = {name: [file.stat().st_size, file_digest(file)] for name, file in files.items()}
    except (OSError, CheckpointError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        cure = "Free some space and run the same command again."
        raise CheckpointError(f"{folder}: the model could not be written ({error})\n{cure}") from error
    return written


def model_faults(folder: Path) -> list[str]:
    """Weights that are not as a run wrote them, and files that are gone; nothing for a folder that no run has recorded.

    Settings and templates are files that people edit.
    """
    files: dict[str, Any] = {}
    if folder.name == MODEL:
        files = read_manifest(folder.parent).get("model", {})
    elif folder.parent.name == KEPT:
        files = read_manifest(folder.parent.parent).get("kept", {}).get(folder.name, {})
    edited = {name for name in files if not name.endswith((".safetensors", ".bin")) and (folder / name).is_file()}
    return [
        fault for name, expected in files.items() if name not in edited and (fault := file_fault(folder / name, name, expected))
    ]
