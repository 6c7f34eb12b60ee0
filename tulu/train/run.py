"""The run directory runs/NAME/STAGE: recipe, manifest, metrics, journal, atomic checkpoints, resume.

Everything is written beside its place and renamed, so a run that dies at any moment leaves either the old file or
the new one. Running the same command again resumes; a changed recipe or changed data is an error that says what changed.
"""

import json
import logging
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import yaml

from tulu.config.load import Job
from tulu.errors import CheckpointError, RecipeError
from tulu.files import remove_partials, sync_folder, write_atomic
from tulu.model.parallel import Parallel
from tulu.train.energy import Energy, EnergyMeter
from tulu.train.manifest import environment

log = logging.getLogger("tulu")

CHECKPOINT = "step-{:06d}"


class Run:
    """One stage of one recipe on disk, and where it stands."""

    def __init__(self, job: Job, parallel: Parallel) -> None:
        """Open or create the run directory. Raises CheckpointError if it holds a run of another recipe."""
        self.job = job
        self.path = job.folder
        self.parallel = parallel
        self.step = 0
        """Optimizer steps done, of all sessions together."""
        self.seconds = 0.0
        self.energy: Energy = {}
        self.interrupted = False
        self._section = getattr(job.recipe, job.stage)
        self._since = time.monotonic()
        self._meter: EnergyMeter | None = None
        if parallel.is_main:
            if job.fresh and self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "checkpoints", self.path / "rollouts"):
                remove_partials(folder)
            self._check_recipe()
        parallel.wait()

    @property
    def start(self) -> str:
        """The model that the stage starts from."""
        if self.job.start is None:
            raise RecipeError(f"{self.job.stage}: nothing to start from; set model, or {self.job.stage}.start")
        return self.job.start

    @property
    def cache(self) -> Path:
        """Where all runs share what depends on content alone: encoded rows, reference log-probs."""
        return self.path.parent.parent / ".cache"

    # -- what was asked for ------------------------------------------------------------------------------------

    def _check_recipe(self) -> None:
        """Write the resolved recipe, or compare it with the one this run began with.

        A run that ended before its data and start were pinned has done nothing that a corrected recipe could contradict.
        """
        resolved = job_recipe(self.job)
        file = self.path / "recipe.yaml"
        if file.exists() and self.manifest().get("pinned"):
            before = yaml.safe_load(file.read_text())
            changed = differences(before, resolved)
            if changed:
                raise CheckpointError(
                    f"{self.path}: this run began with another recipe:\n  "
                    + "\n  ".join(changed)
                    + "\nUndo the change to resume, run with --fresh to start over, or give the recipe another name."
                )
        else:
            write_atomic(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))

    def pin(self, **facts: Any) -> None:
        """Record what the run rests on (data, starting weights, template), or check that it has not changed."""
        if not self.parallel.is_main:
            return
        manifest = self.manifest()
        before = manifest.get("pinned", {})
        facts = json.loads(json.dumps({**facts, "processes": self.parallel.world}))
        known = [name for name in facts if name in before]
        changed = differences({name: before[name] for name in known}, {name: facts[name] for name in known})
        if changed:
            raise CheckpointError(
                f"{self.path}: what this run began with has changed:\n  "
                + "\n  ".join(changed)
                + "\nRestore it to resume, or run with --fresh to start over."
            )
        self._update_manifest(pinned={**before, **facts}, **environment())

    def manifest(self) -> dict[str, Any]:
        """What is known about the run: versions, commit, digests, hardware, seconds."""
        file = self.path / "manifest.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def _update_manifest(self, **facts: Any) -> None:
        write_atomic(self.path / "manifest.json", json.dumps({**self.manifest(), **facts}, indent=2) + "\n")

    @property
    def finished(self) -> bool:
        """Whether an earlier session brought the stage to its end."""
        return bool(self.manifest().get("finished")) and (self.path / "model").is_dir()

    # -- while it runs -----------------------------------------------------------------------------------------

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl."""
        self._append("metrics.jsonl", {"step": step, **metrics})

    def journal(self, event: str, **facts: Any) -> None:
        """Append what was drawn, graded or trained."""
        self._append("journal", {"event": event, **facts})

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        if self.parallel.is_main:
            with (self.path / name).open("a") as file:
                file.write(json.dumps(row) + "\n")

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one step's completions as rollouts/step-000123.parquet."""
        if not self.parallel.is_main:
            return
        import pyarrow
        import pyarrow.parquet

        folder = self.path / "rollouts"
        folder.mkdir(exist_ok=True)
        file = folder / f"{CHECKPOINT.format(step)}.parquet"
        partial = file.with_name(f".partial-{file.name}")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), partial)
        partial.rename(file)

    def elapsed(self) -> float:
        """Seconds of all sessions together."""
        return self.seconds + time.monotonic() - self._since

    # -- checkpoints -------------------------------------------------------------------------------------------

    def resume(self) -> dict[str, Any]:
        """Load the newest checkpoint into the prepared model and optimizer; its extra state, empty for a new run."""
        checkpoints = self._checkpoints()
        state: dict[str, Any] = {}
        if checkpoints:
            newest = checkpoints[-1]
            try:
                state = json.loads((newest / "state.json").read_text())
                _check_sizes(newest, state["files"])
                self.parallel.load(newest)
            except (OSError, RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
                cure = "Remove this folder to resume from the one before."
                raise CheckpointError(f"{newest}: cannot be read ({type(error).__name__}: {error})\n{cure}") from error
            self.step, self.seconds, self.energy = state["step"], state["seconds"], state.get("energy", {})
            log.info("resumed %s at step %d", self.path, self.step)
        self._since = time.monotonic()
        if self.parallel.is_main:
            self._forget_after(self.step)
        self.parallel.wait()
        return dict(state.get("extra", {}))

    def save(self, step: int, **extra: Any) -> None:
        """Write a checkpoint of all processes beside its place and rename it. Raises CheckpointError if the disk refuses."""
        folder = self.path / "checkpoints" / CHECKPOINT.format(step)
        partial = folder.with_name(f".partial-{folder.name}")
        try:
            partial.mkdir(parents=True, exist_ok=True)
            self.parallel.save(partial)
            self.parallel.wait()
            if self.parallel.is_main:
                energy = self._meter.read() if self._meter else self.energy
                known = {"step": step, "seconds": self.elapsed(), "energy": energy}
                state = {**known, "extra": extra, "files": _sizes(partial)}
                (partial / "state.json").write_text(json.dumps(state))
                sync_folder(partial)
            self.parallel.wait()
            if self.parallel.is_main:
                if folder.exists():
                    shutil.rmtree(folder)
                partial.rename(folder)
                for old in self._checkpoints()[: -self._section.keep_checkpoints]:
                    shutil.rmtree(old)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"{folder}: the checkpoint could not be written ({error})\n"
                "Free some space and run the same command again: it resumes from the checkpoint before."
            ) from error
        self.parallel.wait()

    def due(self, step: int, last: bool) -> bool:
        """Whether a checkpoint follows this step."""
        every = self._section.save_every
        return last or bool(every and step % every == 0)

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*"))

    def _forget_after(self, step: int) -> None:
        """Cut from the logs what a session that died had done after its last checkpoint: it is done again."""
        for name in ("metrics.jsonl", "journal"):
            file = self.path / name
            if file.exists():
                kept = [line for line in file.read_text().splitlines(keepends=True) if _step_of(line) <= step]
                write_atomic(file, "".join(kept))
        for file in (self.path / "rollouts").glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self, save: Callable[[Path, bool], None], **facts: Any) -> Path:
        """Write model/ with `save(folder, whether this rank writes)` and close the manifest; returns the folder."""
        folder, partial = self.path / "model", self.path / ".partial-model"
        try:
            save(partial, self.parallel.is_main)
            if self.parallel.is_main:
                sync_folder(partial)
                if folder.exists():
                    shutil.rmtree(folder)
                partial.rename(folder)
                totals = {"steps": self.step, "seconds": round(self.elapsed(), 3), "energy": self.energy}
                self._update_manifest(finished=True, **totals, **facts)
        except (OSError, CheckpointError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            cure = "Free some space and run the same command again."
            raise CheckpointError(f"{folder}: the model could not be written ({error})\n{cure}") from error
        self.parallel.wait()
        return folder

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """While a stage trains: the first Ctrl-C or SIGTERM becomes a checkpoint at the end of the step, the second stops
        at once; energy is measured."""

        def ask(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            log.warning("stopping after this step, with a checkpoint; again to stop at once")

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        self._meter = EnergyMeter(self.energy) if self.parallel.is_main else None
        try:
            yield
        finally:
            if self._meter is not None:
                self.energy = self._meter.stop()
                self._meter = None
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop_if_interrupted(self, step: int, **extra: Any) -> None:
        """After a step: if any process was asked to stop, save and raise KeyboardInterrupt."""
        if self.parallel.largest(int(self.interrupted)):
            self.save(step, **extra)
            raise KeyboardInterrupt


def job_recipe(job: Job) -> dict[str, Any]:
    """The part of a recipe that one stage reads, every field written."""
    fields = {"name", "model", "revision", "template", job.stage}
    return {**job.recipe.model_dump(mode="json", include=fields), "start": job.start}


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """What changed between two plain trees, one `key.path: old -> new` a line."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in dict.fromkeys([*before, *after])
            for line in differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [f"{path}: {json.dumps(before)} -> {json.dumps(after)}"]


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}


def _check_sizes(folder: Path, sizes: Mapping[str, int]) -> None:
    """Raises ValueError for a file that was cut or lost: some readers would go on without it."""
    found = _sizes(folder)
    for name, size in sizes.items():
        if found.get(name) != size:
            raise ValueError(f"{name} has {found.get(name, 'no')} bytes of {size}")


def _step_of(line: str) -> int:
    """The step of a log line; a line that was cut by the crash counts as after everything."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError):
        return 1 << 62
