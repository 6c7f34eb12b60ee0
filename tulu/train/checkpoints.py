"""The checkpoints of a run: folders step-000100 that hold weights, optimizer, random states and where the run stands.

A checkpoint is written beside its place and renamed, so a run that dies at any moment leaves the one before intact. What it
holds is listed with sizes in its state.json, because some readers would go on without a file that was cut or lost.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from tulu.errors import CheckpointError
from tulu.files import remove_partials, sync_folder
from tulu.model.parallel import Parallel

STEP_NAME = "step-{:06d}"
"""The name of everything that is written for one step, such as step-000100."""


class Checkpoints:
    """The newest checkpoints of a run."""

    def __init__(self, folder: Path, keep: int, parallel: Parallel) -> None:
        """Checkpoints in `folder`, of which the newest `keep` stay. What a dead session left half written is removed."""
        self.folder = folder
        self.keep = keep
        self.parallel = parallel
        if parallel.is_main:
            remove_partials(folder)

    def load_newest(self) -> dict[str, Any] | None:
        """Read the newest checkpoint into the prepared model and optimizer; returns the state saved with it, if there is one.

        Raises CheckpointError if it is damaged.
        """
        paths = self._paths()
        if not paths:
            return None
        newest = paths[-1]
        try:
            state: dict[str, Any] = json.loads((newest / "state.json").read_text())
            sizes = _sizes(newest)
            for name, size in state["files"].items():
                if sizes.get(name) != size:
                    raise ValueError(f"{name} has {sizes.get(name, 'no')} bytes of {size}")
            self.parallel.load(newest)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            cure = "Remove this folder to resume from the one before."
            raise CheckpointError(f"{newest}: cannot be read ({type(error).__name__}: {error})\n{cure}") from error
        return state

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of all processes with the state of the run. Raises CheckpointError if the disk refuses."""
        folder = self.folder / STEP_NAME.format(step)
        partial = folder.with_name(f".partial-{folder.name}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            self.parallel.save(partial)
            self.parallel.wait()
            if self.parallel.is_main:
                (partial / "state.json").write_text(json.dumps({**state, "files": _sizes(partial)}))
                sync_folder(partial)
            self.parallel.wait()
            if self.parallel.is_main:
                if folder.exists():
                    shutil.rmtree(folder)
                partial.rename(folder)
                for old in self._paths()[: -self.keep]:
                    shutil.rmtree(old)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"{folder}: the checkpoint could not be written ({error})\n"
                "Free some space and run the same command again: it resumes from the checkpoint before."
            ) from error
        self.parallel.wait()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))


def _sizes(folder: Path) -> dict[str, int]:
    """The bytes of every file below a folder, by its path within."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
