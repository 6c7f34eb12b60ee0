"""The checkpoints of a run: folders step-000100 that hold weights, optimizer, random states and where the run stands.

A checkpoint is written beside its place and renamed, so a run that dies at any moment leaves the one before intact. Its
state.json lists what it holds, each file with its size and a digest of its content, and ends with a digest of itself. All of
that is checked before anything is read into the model, because the readers of these files take changed bytes for weights.
"""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import xxhash

from tulu.config.job import STEP_NAME, of_steps
from tulu.config.shortage import is_shortage
from tulu.errors import CheckpointError, ResumeError
from tulu.files import file_digest, file_fault, remove_partials, sync_folder
from tulu.model.parallel import Parallel

log = logging.getLogger("tulu")

DAMAGED = "damaged-"
"""What the name of a checkpoint begins with that was found damaged, until another one is written."""


class Checkpoints:
    """The newest checkpoints of a run."""

    def __init__(self, folder: Path, keep: int, parallel: Parallel) -> None:
        """Checkpoints in `folder`, of which the newest `keep` stay. What a dead session left half written is removed."""
        self.folder = folder
        self.keep = keep
        self.parallel = parallel
        if parallel.is_main:
            remove_partials(folder)
        # A process that is ahead would begin to write what the main one then removes.
        parallel.wait()

    def load_newest(self) -> dict[str, Any] | None:
        """Read the newest whole checkpoint into the prepared model and optimizer; returns the state saved with it, if any.

        A damaged one is named and put aside, and the one before it is taken. Raises ResumeError where none is whole.
        """
        faults: list[str] = []
        for path in self.parallel.exchange(self._paths())[0][::-1]:
            state, problems = self.check(path)
            if not problems:
                if faults and self.parallel.is_main:
                    self._put_aside(path, faults)
                self._load(path)
                return state
            faults.append(f"{path} is damaged: {'; '.join(problems)}")
        if faults:
            cure = "No whole checkpoint is left. Restore one from a copy, or run with --fresh to start over."
            raise ResumeError("\n".join([*faults, cure]))
        return None

    def check(self, path: Path) -> tuple[dict[str, Any], list[str]]:
        """The state of a checkpoint, and what is wrong with its files; the processes share the work and get the same."""
        state, problems = self.parallel.exchange(_read_state(path) if self.parallel.is_main else ({}, []))[0]
        if problems:
            return {}, problems
        own = self.parallel.share(_largest_first(state["files"]))
        found = [problem for name in own if (problem := file_fault(path / name, name, state["files"][name]))]
        return state, sorted(problem for part in self.parallel.exchange(found) for problem in part)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write a checkpoint of all processes with the state of the run. Raises CheckpointError if the disk refuses."""
        folder = self.folder / STEP_NAME.format(step)
        partial = folder.with_name(f".partial-{folder.name}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            self.parallel.save(partial)
            self.parallel.wait()
            files = self._digests(partial)
            if self.parallel.is_main:
                (partial / "state.json").write_text(_sealed({**state, "files": files}))
                sync_folder(partial)
            self.parallel.wait()
            if self.parallel.is_main:
                if folder.exists():
                    shutil.rmtree(folder)
                partial.rename(folder)
                for old in (*self._paths()[: -self.keep], *self.folder.glob(f"{DAMAGED}*")):
                    shutil.rmtree(old)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            if is_shortage(error):
                raise
            raise CheckpointError(
                f"{folder}: the checkpoint could not be written ({error})\n"
                "Free some space and run the same command again: it resumes from the checkpoint before."
            ) from error
        self.parallel.wait()

    def _paths(self) -> list[Path]:
        return [*of_steps(self.folder).values()]

    def newest(self) -> Path | None:
        """The folder of the last checkpoint, if there is one."""
        return next(reversed(self._paths()), None)

    def oldest_step(self) -> int:
        """The step of the oldest checkpoint that is kept, 0 where there is none."""
        return min(of_steps(self.folder), default=0)

    def _digests(self, folder: Path) -> dict[str, list[Any]]:
        """[bytes, digest] of every file below the folder, by its path within; each process reads a share of them."""
        sizes = {str(file.relative_to(folder)): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
        own = self.parallel.share(_largest_first(self.parallel.exchange(sizes)[0]))
        parts = self.parallel.exchange({name: [sizes[name], file_digest(folder / name)] for name in own})
        return dict(sorted(item for part in parts for item in part.items()))

    def _put_aside(self, whole: Path, faults: Sequence[str]) -> None:
        """Say which checkpoints are damaged and which one is taken, and give the damaged ones another name."""
        paths = self._paths()
        for path in paths[paths.index(whole) + 1 :]:
            aside = path.with_name(f"{DAMAGED}{path.name}")
            if aside.exists():
                shutil.rmtree(aside)
            path.rename(aside)
        log.warning("%s\nResuming from %s; what is damaged is put aside until the next checkpoint.", "\n".join(faults), whole)

    def _load(self, path: Path) -> None:
        try:
            self.parallel.load(path)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            if is_shortage(error):
                raise
            cure = "Its files are as they were written, perhaps by another version; remove it to resume from the one before."
            raise ResumeError(f"{path}: cannot be read ({type(error).__name__}: {error})\n{cure}") from error


def _sealed(content: Mapping[str, Any]) -> str:
    """The content as JSON, with a digest of itself."""
    # What is read back has no tuples, and no keys that are numbers.
    content = json.loads(json.dumps(content))
    return json.dumps({**content, "digest": xxhash.xxh3_128_hexdigest(json.dumps(content).encode())})


def _read_state(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What state.json says, and what is wrong with it.

    Checkpoints of earlier versions have sizes without digests; they are taken by their sizes, and the log says so.
    """
    try:
        text = (path / "state.json").read_text(encoding="utf-8")
        state = json.loads(text)
        files, digest = state["files"], state.pop("digest", None)
        older = digest is None and all(type(size) is int for size in files.values())
        if not older and text != _sealed(state):
            return {}, ["state.json is not what was written"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {}, [f"state.json cannot be read ({type(error).__name__}: {error})"]
    if older:
        log.warning("%s has no digests, so only the sizes of its files can be checked", path)
        state["files"] = {name: [size, None] for name, size in files.items()}
    return state, []


def _largest_first(files: Mapping[str, Any]) -> list[str]:
    """The names in an order in which every n-th one is a fair share of the bytes; values are sizes, or begin with one."""
    return sorted(files, key=lambda name: (files[name] if isinstance(files[name], int) else files[name][0], name), reverse=True)
