"""The run directory runs/NAME/STAGE: its recipe, manifest, metrics, journal, rollouts, checkpoints and model.

Every file is written beside its place and renamed, so a run that dies at any moment leaves either the old file or the new
one. The same command run again resumes; a changed recipe or changed data is an error that names what changed.
"""

import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tulu.config.job import KEPT, MODEL, STEP_NAME, Job, of_steps
from tulu.config.processes import handling
from tulu.errors import RecipeError, TrainingError, TuluError
from tulu.files import JsonLines, remove_partials, write_atomic
from tulu.model.parallel import Parallel
from tulu.train.agreement import from_main
from tulu.train.attempts import set_aside
from tulu.train.begun import check_recipe, job_recipe, refuse_changes
from tulu.train.checkpoints import Checkpoints
from tulu.train.energy import Energy
from tulu.train.finite import advice, named_tensors
from tulu.train.manifest import by_source, environment, read_manifest
from tulu.train.measured import Measured, on_record
from tulu.train.model_files import SaveModel, model_faults, write_model
from tulu.train.trackers import RunFacts
from tulu.train.tracking import Trackers
from tulu.train.untrained import why_untrained
from tulu.train.written import SAMPLES, write_rollouts, write_samples

log = logging.getLogger("tulu")


class Run:
    """The folder of one stage of one recipe, and where the stage stands."""

    def __init__(self, job: Job, parallel: Parallel) -> None:
        """Open or create the run directory. Raises ResumeError if it holds a run of another recipe."""
        self.job = job
        self.path = job.folder
        self.parallel = parallel
        self.step = 0
        """Optimizer steps that all sessions together have done."""
        self.trained: int | None = 0
        """Steps that moved the weights, over all sessions; None where an earlier version of the program did not count them."""
        self._updates = 0
        self.seconds = 0.0
        """Seconds that earlier sessions took, up to the checkpoint that was resumed."""
        self.energy: Energy = {}
        """Energy that earlier sessions took, and at the end this one too."""
        self.interrupted = False
        """Whether this process was asked to stop after the present step."""
        self.section: Any = job.section
        """The recipe's section of the stage."""
        self._metrics, self._journal = JsonLines(self.path / "metrics.jsonl"), JsonLines(self.path / "journal")
        self._since = time.monotonic()
        self._meter: Measured | None = None
        self._trackers = Trackers()
        self.save_model: SaveModel | None = None
        """Writes the model that is trained into a folder; known once it is loaded."""
        if parallel.is_main:
            if job.fresh:
                set_aside(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "rollouts", self.path / SAMPLES, self.path / KEPT):
                remove_partials(folder)
            check_recipe(job)
        self.checkpoints = Checkpoints(self.path / "checkpoints", self.section.keep_checkpoints, parallel)
        parallel.wait()

    @property
    def start(self) -> str:
        """The model that the stage starts from: a folder or a hub name. Raises RecipeError if the recipe names none."""
        if self.job.start is None:
            raise RecipeError(f"{self.job.stage}: nothing to start from; set model, or {self.job.stage}.start")
        return self.job.start

    @property
    def cache(self) -> Path:
        """The folder in which all runs share what depends on content alone, such as encoded rows and reference log-probs."""
        return self.path.parent.parent / ".cache"

    # -- what the run rests on ---------------------------------------------------------------------------------

    def pin(self, **facts: Any) -> None:
        """Record what the run rests on, such as data, starting weights and template, by its content.

        Raises ResumeError if the run began with other ones.
        """
        if not self.parallel.is_main:
            return
        before = self.manifest().get("pinned", {})
        facts = json.loads(json.dumps({**facts, "processes": self.parallel.world}))
        # A fact that only one of the two versions of this program records is no change.
        again = {name: facts.get(name, value) for name, value in before.items()}
        cure = "Restore it to resume, or run with --fresh to start over."
        refuse_changes(self.path, "what this run began with has changed", *by_source(before, again), cure)
        self._update_manifest(pinned={**before, **facts}, **environment())

    def manifest(self) -> dict[str, Any]:
        """The contents of manifest.json: versions, commit, digests, hardware and, at the end, totals."""
        return read_manifest(self.path)

    def _update_manifest(self, **facts: Any) -> None:
        write_atomic(self.path / "manifest.json", json.dumps({**self.manifest(), **facts}, indent=2) + "\n")

    @property
    def model_folder(self) -> Path:
        """The folder of the trained model."""
        return self.path / MODEL

    @property
    def finished(self) -> bool:
        """Whether an earlier session brought the stage to its end, and its model is as it was written.

        A damaged model is told, and written again from the last checkpoint. Every process must ask, and gets the same answer.
        """
        if not self.manifest().get("finished") or not self.model_folder.is_dir():
            return False
        faults = self.parallel.exchange(model_faults(self.model_folder) if self.parallel.is_main else [])[0]
        if faults and self.parallel.is_main:
            log.warning("%s is damaged: %s\nIt is written again.", self.model_folder, "; ".join(faults))
        return not faults

    # -- while it runs -----------------------------------------------------------------------------------------

    def log(self, step: int, metrics: Mapping[str, float | None]) -> None:
        """Append one line to metrics.jsonl, and give its figures to the trackers."""
        if self.parallel.is_main:
            self._metrics.append([{"step": step, **metrics}])
            self._trackers.log(step, metrics)

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]], shown: Sequence[Mapping[str, Any]]) -> None:
        """Write the answers of a look as samples/step-000040.jsonl; those that are shown go to the trackers too."""
        if self.parallel.is_main:
            write_samples(self.path / SAMPLES, step, rows)
            self._trackers.table(step, shown)

    def journal(self, event: str, **facts: Any) -> None:
        """Append to the journal what was drawn, graded or trained."""
        if self.parallel.is_main:
            self._journal.append([{"event": event, **facts}])

    def rollouts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write one step's completions, a row each, as rollouts/step-000123.parquet."""
        if self.parallel.is_main:
            write_rollouts(self.path / "rollouts", step, rows)

    def elapsed(self) -> float:
        """Seconds that all sessions together have taken."""
        return self.seconds + time.monotonic() - self._since

    # -- checkpoints -------------------------------------------------------------------------------------------

    def resume(self) -> dict[str, Any]:
        """Load the newest whole checkpoint into the prepared model and optimizer.

        Returns what `save` was given, {} in a new run. Raises ResumeError if there are checkpoints and none is whole.
        """
        state = self.checkpoints.load_newest() or {}
        # What a session did after its last checkpoint is done again, but its energy is spent.
        self.energy = on_record(self.path, state.get("energy") or {}) if self.parallel.is_main else {}
        if state:
            self.step, self.seconds = state["step"], state["seconds"]
            self.trained = state.get("trained")
            log.info("resumed %s at step %d", self.path, self.step)
        self._since = time.monotonic()
        if self.parallel.is_main:
            self._forget_after(self.step)
        if self.job.recipe.tracker:
            from_main(self.parallel, "the trackers to start", self._start_trackers)
        self.parallel.wait()
        return dict(state.get("extra", {}))

    def _start_trackers(self) -> None:
        """Go on in the runs that earlier sessions began. Raises RecipeError where a tracker does not start."""
        facts = RunFacts.of(self.job, self.step, job_recipe(self.job), self.manifest())
        self._update_manifest(trackers={**facts.ids, **self._trackers.start(self.job.recipe.tracker, facts)})

    def save(self, step: int, **extra: Any) -> None:
        """Write a checkpoint of all processes, which gives `extra` back at `resume`.

        Raises TrainingError if a weight is not finite, CheckpointError if the disk refuses.
        """
        if self.parallel.module is not None and (names := self.parallel.not_finite(self.parallel.module)):
            raise TrainingError(f"the weights are not finite and are not saved: {named_tensors(names)}")
        energy = self._meter.read() if self._meter else self.energy
        facts = {"step": step, "trained": self.trained, "seconds": self.elapsed(), "energy": energy, "extra": extra}
        self.checkpoints.save(step, facts)

    def due(self, step: int, last: bool) -> bool:
        """Whether a checkpoint follows this step, of which `last` says that it is the last."""
        every = self.section.save_every
        return last or bool(every and step % every == 0)

    def end_step(self, last: bool, state: Callable[[int], Mapping[str, Any]] | None = None) -> None:
        """After a step: keep the model and save a checkpoint where due; KeyboardInterrupt if a process was asked to stop.

        What `state` returns of the step is saved with it; it is asked only where a checkpoint is about to be written.
        """
        if self.trained is not None:
            self.trained += self.parallel.updates > self._updates
        self._updates = self.parallel.updates
        every = self.section.keep_every
        if every and self.step % every == 0:
            # Before the checkpoint, from which a session that dies in between would go on without it.
            self._keep_model()
        stopping = self.parallel.largest(int(self.interrupted))
        if stopping or self.due(self.step, last):
            self.save(self.step, **(state(self.step) if state else {}))
        if stopping:
            raise KeyboardInterrupt

    def _keep_model(self) -> None:
        """Write the model as it is now into models/, with the digests of its files in the manifest."""
        if self.save_model is None:
            raise TrainingError(f"{self.job.stage}.keep_every: the stage has no model that could be kept")
        name = STEP_NAME.format(self.step)
        files = write_model(self.path / KEPT / name, self.save_model, self.parallel)
        if self.parallel.is_main:
            self._update_manifest(kept={**self.manifest().get("kept", {}), name: files})

    def _forget_after(self, step: int) -> None:
        """Cut from the logs what a dead session did after its last checkpoint, since it is done again."""
        for rows in (self._metrics, self._journal):
            rows.keep(lambda row: row.get("step", math.inf) <= step)
        written = of_steps(self.path / "rollouts", ".parquet"), of_steps(self.path / SAMPLES, ".jsonl")
        for file in (file for files in written for made, file in files.items() if made > step):
            file.unlink()
        for folder in (folder for made, folder in of_steps(self.path / KEPT).items() if made > step):
            shutil.rmtree(folder)

    # -- the end -----------------------------------------------------------------------------------------------

    def finish(self, save: SaveModel, **facts: Any) -> Path:
        """Write model/ with `save(folder, whether this rank writes)` and close the manifest; returns the folder.

        Raises TrainingError if no step moved the weights or a number of the written model is not finite, CheckpointError if the
        disk refuses.
        """
        if self.step and self.trained == 0:
            rows = self._metrics.read(lambda row, _where: row) if self.parallel.is_main else []
            why = self.parallel.exchange(why_untrained(self.job.stage, rows, bool(self.parallel.skipped)))[0]
            raise TrainingError(f"{self.path}: 0 of {self.step} steps trained, so no model was written: {why}")
        files = write_model(self.model_folder, save, self.parallel)
        if self.parallel.is_main:
            if self.trained is not None and self.trained < self.step:
                log.info("%s: %d of %d steps trained", self.job.stage, self.trained, self.step)
            totals = {"steps": self.step, "trained": self.trained, "seconds": round(self.elapsed(), 3), "energy": self.energy}
            self._update_manifest(finished=True, **totals, **facts, model=files)
        self.parallel.wait()
        return self.model_folder

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """While the context lasts, energy is measured, on top of all that is on record; the manifest has it however that ends."""
        if self.parallel.is_main:
            self._meter = Measured(self.path, "training", on_record(self.path, self.energy))
        try:
            yield
        finally:
            if self._meter is not None:
                self.energy, self._meter = self._meter.close(False), None
                # A full disk, of which something else has spoken, is no reason to hide why the session ended.
                with suppress(OSError, TuluError):
                    self._update_manifest(energy=self.energy)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """While the context lasts, energy is measured, and Ctrl-C, SIGTERM or a closed terminal stop the stage after its step.

        It then has a checkpoint; a second Ctrl-C or SIGTERM stops it at once. A TrainingError leaves with where it happened, what
        is kept, and what to do.
        """

        def stop(number: int, frame: FrameType | None) -> None:
            if self.interrupted:
                if number == signal.SIGHUP:
                    # Both the shell and the system tell that a terminal is closed.
                    return
                raise KeyboardInterrupt
            self.interrupted = True
            log.warning("stopping after this step, with a checkpoint; again to stop at once")

        try:
            with handling(stop), self.measuring():
                yield
        except TrainingError as error:
            raise TrainingError(f"{self.path}, after {self.step} steps: {error}\n{advice(self.checkpoints.newest())}") from error
        finally:
            self._trackers.close()
