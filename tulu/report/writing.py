"""Writing a report into a file."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tulu.files import write_atomic
from tulu.report.page import gather, report_page
from tulu.report.rollout_files import Indexes

log = logging.getLogger("tulu")

NAME = "report.html"
"""The report of a run, in its folder."""


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of the runs in these folders; returns the file. Raises RecipeError where they do not fit one."""
    indexes = Indexes()
    write_atomic(out, report_page(gather(folders, indexes), indexes))
    return out


def leave_report(folder: Path) -> None:
    """Write the report of a run that has ended, in its folder; a report that cannot be written is told and harms no run."""
    try:
        log.info("report: %s", write_report([folder], folder / NAME))
    except Exception as error:  # noqa: BLE001 - the run is done, and whatever is wrong here must not make it fail
        log.warning(
            "the report of %s is not written (%s: %s); the run is complete without it", folder, type(error).__name__, error
        )
