"""What a run began with, beside what it is asked for now: only the same may be resumed."""

from pathlib import Path
from typing import Any

import yaml

from tulu.config.job import Job, of_steps
from tulu.config.training import MEMORY_FIELDS
from tulu.errors import ResumeError
from tulu.files import differences, write_atomic
from tulu.train.manifest import read_manifest, read_record

RECIPE, MANIFEST = "recipe.yaml", "manifest.json"
_RESTORE = "Restore it from a copy, or run with --fresh to start over."


def check_recipe(job: Job) -> None:
    """Write the resolved recipe into the run's folder, or raise ResumeError if the run began with another one.

    A run that ended before its data and start were pinned has done nothing that a corrected recipe could contradict.
    """
    resolved, file = job_recipe(job), job.folder / RECIPE
    before: Any = None
    if file.exists() and read_manifest(job.folder).get("pinned"):
        cure = "Undo the change to resume, run with --fresh to start over, or give the recipe another name."
        before = read_record(file, yaml.safe_load)
        stage = job.row.name
        compared = dict(before)
        if isinstance(section := before.get(stage), dict):
            # What only decides on memory and speed may change, above all where memory ran out.
            compared[stage] = {**section, **{name: resolved[stage][name] for name in MEMORY_FIELDS}}
        if _is_moved(before.get("start"), job):
            compared["start"] = job.start
        earlier, now = ({job.stage if key == stage else key: fields[key] for key in fields} for fields in (compared, resolved))
        refuse_changes(job.folder, "this run began with another recipe", earlier, now, cure)
    elif made := [*of_steps(job.folder / "checkpoints").values(), *job.folder.glob("stream/from-*.jsonl")]:
        # Without one of the two, nothing says what these rest on.
        missing = MANIFEST if file.exists() else RECIPE
        raise ResumeError(f"{job.folder}: there is no {missing} that says with what {made[-1].name} was made\n{_RESTORE}")
    if before != resolved:
        write_atomic(file, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))


def refuse_changes(folder: Path, problem: str, before: Any, now: Any, cure: str) -> None:
    """Raises ResumeError with every difference, if there is one."""
    if lines := differences(before, now):
        listed = "\n  ".join(lines)
        raise ResumeError(f"{folder}: {problem}:\n  {listed}\n{cure}")


def _is_moved(before: object, job: Job) -> bool:
    """Whether the model that a run starts from is that of the same stage as before, in a folder that is named otherwise by now.

    An earlier stage's model moves with the folder of all runs, which may also be given from another working folder (--runs).
    What it holds is pinned in any case.
    """
    runs = job.folder.parent.parent
    if not isinstance(before, str) or job.start is None or not Path(job.start).is_relative_to(runs):
        return False
    within = Path(job.start).relative_to(runs).parts
    return Path(before).parts[-len(within) :] == within


def job_recipe(job: Job) -> dict[str, Any]:
    """The part of a recipe that one stage reads, with every field, as plain values."""
    recipe = job.recipe.model_dump(mode="json", include={"name", "model", "revision", "template"})
    return {**recipe, job.row.name: job.section.model_dump(mode="json"), "start": job.start}
