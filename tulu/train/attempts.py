"""An attempt at a stage: one that is refused leaves nothing, and of one that is started over what it took stays on record."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tulu.config.job import Job
from tulu.config.processes import is_main_process
from tulu.config.shortage import telling_shortage
from tulu.errors import RecipeError, TuluError
from tulu.files import write_atomic
from tulu.train.ledger import EARLIER, read_entry
from tulu.train.manifest import read_manifest

_KEPT = ("versions", "commit", "hardware", "command")
"""What a manifest says of where an attempt ran."""


@contextmanager
def attempting(job: Job) -> Iterator[None]:
    """While the context lasts, a stage that runs out of memory says what to lower, and one that is refused leaves no folder.

    What is left of a stage counts as its beginning: the stages after it would wait for its model. So exit code 2, which says
    that nothing was done, takes away a folder that this attempt has made and in which nothing is pinned yet.
    """
    # Results of an evaluation lie in a folder of their own, task by task, and are no beginning of anything.
    kept = job.folder.exists() or not job.row.makes_folder
    try:
        with telling_shortage(job):
            yield
    except TuluError as error:
        if error.exit_code == 2 and is_main_process() and not kept and not (job.folder / "manifest.json").exists():
            shutil.rmtree(job.folder, ignore_errors=True)
        raise


def set_aside(folder: Path) -> None:
    """Take a stage's folder away, all but the record of its energy, which `tulu energy` counts for ever after.

    The folder is renamed, so that at no moment its energy stands in two places or in none. What a session that was killed did
    not come to delete is deleted now.
    """
    if folder.is_symlink():
        raise RecipeError(f"{folder}: is a link, and --fresh deletes no folder elsewhere; remove the link, and run it again")
    attempts = folder.parent / EARLIER / folder.name
    if folder.exists():
        attempts.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(one.name) for one in attempts.iterdir() if one.name.isdigit()), default=0)
        folder.rename(attempts / str(number))
    for attempt in sorted(attempts.iterdir()) if attempts.is_dir() else ():
        _reduce(attempt)


def _reduce(attempt: Path) -> None:
    """Leave of an attempt nothing but a manifest with its energy, and of one that measured nothing, nothing at all."""
    entry = read_entry(attempt)
    if not entry.kwh and not entry.seconds:
        shutil.rmtree(attempt)
        return
    if all(path.name == "manifest.json" for path in attempt.iterdir()):
        return
    manifest = {}
    with suppress(TuluError):
        manifest = read_manifest(attempt)
    record = {
        **{name: manifest[name] for name in _KEPT if name in manifest},
        "finished": entry.state.startswith("finished"),
        "seconds": entry.seconds,
        "energy": {"kwh": entry.kwh, **entry.energy, "seconds": entry.seconds, "estimated": list(entry.estimated)},
        "phases": dict(entry.phases),
    }
    # Written before anything is deleted: whoever is killed in between finds the same figures, once.
    write_atomic(attempt / "manifest.json", json.dumps(record, indent=2) + "\n")
    for path in [path for path in attempt.iterdir() if path.name != "manifest.json"]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
