"""Why a rank failed, as it tells the process that launched it, which tells it once for all of them."""

import json
import os
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from tulu.config.processes import REPORTS, rank
from tulu.files import write_atomic

_OF_A_LOST_PEER = ("gloo", "NCCL", "ProcessGroup", "TCPStore", "Connection reset by peer", "Connection closed by peer")
"""What the messages of torch hold where another rank went away; they come as plain RuntimeErrors."""


@dataclass(frozen=True)
class Report:
    """The end of one rank."""

    rank: int
    message: str
    exit_code: int
    seconds: float
    """When it failed, as time.monotonic() counts, which is the same clock in all processes of a machine."""
    details: str = ""
    """The traceback of an error that nobody expected."""
    echo: bool = False
    """Whether it failed because another rank went away."""


def report_failure(message: str, exit_code: int) -> None:
    """Tell the launcher of this rank that it failed with a message for a person."""
    _write(Report(rank(), message, exit_code, time.monotonic()))


def report_bug(error: BaseException) -> None:
    """Tell the launcher of this rank that it failed with an error that nobody expected."""
    message = f"{type(error).__name__}: {error}".strip()
    echo = isinstance(error, (RuntimeError, ConnectionError)) and any(sign in message for sign in _OF_A_LOST_PEER)
    _write(Report(rank(), message, 1, time.monotonic(), "".join(traceback.format_exception(error)), echo))


def _write(report: Report) -> None:
    folder = Path(os.environ.get(REPORTS, ""))
    try:
        write_atomic(folder / f"{report.rank}.json", json.dumps(asdict(report)))
    except OSError:
        # Without a folder to write into, the message still reaches the launcher with the rest of stderr.
        print(report.details or report.message, file=sys.stderr, flush=True)


def read_reports(folder: Path) -> list[Report]:
    """What the ranks said, the first failure first."""
    reports = [Report(**json.loads(file.read_text())) for file in folder.glob("[0-9]*.json")]
    return sorted(reports, key=lambda report: (report.echo, report.seconds))
