"""The boundary of the command line: everything that a user can get wrong leaves through it, as a message with the cure.

A mistake of the user exits with code 2. A full disk, a file that vanished and Ctrl-C become a message as well. A traceback
means a bug of this project.
"""

import errno
import logging
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from tulu.config.processes import is_main_process
from tulu.errors import DataError, RecipeError, TrainingError, TuluError

_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or name another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder belongs; name another place"),
    errno.ENOENT: "it vanished while the command ran; leave its folder in place",
}
"""What to do about an error of the operating system that is not a bug of this project."""


class Boundary(TyperGroup):
    """Where every failure that is not a bug becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            if is_main_process():
                return super().invoke(ctx)
            # One process speaks for all; errors of the others still reach stderr.
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                return super().invoke(ctx)
        except TuluError as error:
            # Every process meets the same mistake in a recipe or its data, and the same numbers; one process reports it.
            if is_main_process() or not isinstance(error, (RecipeError, DataError, TrainingError)):
                _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if is_main_process():
                _complain("interrupted; run the same command again: what can be resumed is")
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno not in _CURES:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"{where}{error.strerror}; {_CURES[error.errno]} and run the same command again")
            raise typer.Exit(2 if error.errno in (errno.ENOTDIR, errno.EEXIST) else 1) from error


class StderrHandler(logging.Handler):
    """Writes the lines of the log to what is `sys.stderr` at that moment, which a caller may replace or close."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


def _complain(message: str) -> None:
    """The message on stderr, its first line in red."""
    from rich.console import Console
    from rich.text import Text

    first, newline, rest = message.partition("\n")
    text = Text(first, style="bold red").append(newline + rest, style="not bold default")
    Console(stderr=True, soft_wrap=True).print(text)
