"""The boundary of the command line: everything that a user can get wrong leaves through it, as a message with the cure.

A mistake of the user exits with code 2. A full disk, a file that vanished and Ctrl-C become a message as well. A traceback
means a bug of this project.
"""

import errno
import logging
import os
import sys
from contextlib import ExitStack, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from tulu.commands.overrides import meant_as_override, names_a_recipe
from tulu.commands.reports import report_bug, report_failure
from tulu.commands.terminal import open_what_is_closed, spell_out_what_cannot_be_shown
from tulu.config.processes import end_with_the_launcher, is_launched, is_main_process, take_names_from_srun
from tulu.errors import DataError, MemoryShortage, RecipeError, TrainingError, TuluError

_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or name another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder belongs; name another place"),
    errno.EFBIG: "the limit of a file's size is too low for it: raise it (ulimit -f), or choose another disk",
    **dict.fromkeys((errno.EIO, errno.ESTALE), "the disk or its server fails: see to it (dmesg)"),
    errno.ENOENT: "it vanished while the command ran; leave its folder in place",
}
"""What to do about an error of the operating system that is not a bug of this project."""


GIVEN: ContextVar[tuple[str, ...]] = ContextVar("GIVEN", default=())
"""The words of the command line behind `tulu`."""


LASTING: ContextVar[ExitStack] = ContextVar("LASTING")
"""What is to last as long as the command; it is closed however the command ends."""


class Boundary(TyperGroup):
    """Where every failure that is not a bug becomes a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the words before they are taken apart."""
        open_what_is_closed()
        spell_out_what_cannot_be_shown()
        GIVEN.set(tuple(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with ExitStack() as lasting:
            LASTING.set(lasting)
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        end_with_the_launcher()
        take_names_from_srun()
        try:
            if is_main_process():
                return super().invoke(ctx)
            # One process speaks for all; errors of the others still reach stderr.
            with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                return super().invoke(ctx)
        except TuluError as error:
            self._tell_shortage(ctx, error)
            # Every process meets the same mistake in a recipe or its data, and the same numbers; one process reports it.
            shared = isinstance(error, (RecipeError, DataError, TrainingError))
            _fail(str(error), error.exit_code, is_main_process() or not shared)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if is_main_process() and not is_launched():
                _complain("interrupted; run the same command again: what can be resumed is")
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno not in _CURES:
                self._tell_shortage(ctx, error)
                _tell_launcher(error)
                raise
            where = f"{error.filename}: " if error.filename else ""
            unreadable = _is_unreadable(error)
            cure = "make it readable, or name another place" if unreadable else _CURES[error.errno]
            code = 2 if unreadable or error.errno in (errno.ENOTDIR, errno.EEXIST) else 1
            _fail(f"{where}{error.strerror}; {cure} and run the same command again", code)
            raise typer.Exit(code) from error
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if message := _of_a_field(error):
                _fail(message, RecipeError.exit_code)
                raise typer.Exit(RecipeError.exit_code) from error
            self._tell_shortage(ctx, error)
            _tell_launcher(error)
            raise

    def _tell_shortage(self, ctx: Any, error: Exception) -> None:
        """End with a message where there was no memory left, whatever an error that came of it says."""
        if isinstance(error, TuluError) and error.__cause__ is None:
            return
        from tulu.config.shortage import say_shortage, shortage_behind

        if (cause := shortage_behind(error)) is not None:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            options = [name for parameter in command.params for name in parameter.opts] if command is not None else []
            _fail(say_shortage(cause, options), MemoryShortage.exit_code)
            raise typer.Exit(MemoryShortage.exit_code) from error


def _of_a_field(error: Exception) -> str | None:
    """What to write in place of an option that is no option of the command but a field of a recipe."""
    option, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if not option or context is None or not any(parameter.name == "overrides" for parameter in context.command.params):
        return None
    if context.command.name == "evaluate" and not names_a_recipe(GIVEN.get()[1:]):
        # A model has no fields.
        return None
    return meant_as_override(context.command.name, option, GIVEN.get())


def _is_unreadable(error: OSError) -> bool:
    """Whether it was reading that is not allowed: of the file that an error names, or of the folder that it would lie in."""
    if error.errno not in (errno.EACCES, errno.EPERM) or not isinstance(error.filename, str | os.PathLike):
        return False
    file = Path(error.filename)
    return (os.path.lexists(file) and not os.access(file, os.R_OK)) or not os.access(file.parent, os.X_OK)


class StderrHandler(logging.Handler):
    """Writes the lines of the log to what is `sys.stderr` at that moment, which a caller may replace or close."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


def _fail(message: str, exit_code: int, speaks: bool = True) -> None:
    """Tell a failure: a rank tells the process that launched it, and any other process the terminal, if it speaks for all."""
    if is_launched():
        report_failure(message, exit_code)
    elif speaks:
        _complain(message)


def _tell_launcher(error: Exception) -> None:
    """End a rank with an error that nobody expected; elsewhere such an error keeps its traceback."""
    if is_launched():
        report_bug(error)
        raise typer.Exit(1) from error


def _complain(message: str) -> None:
    """The message on stderr, its first line in red; plain where there is no memory left for what paints it."""
    try:
        from rich.console import Console
        from rich.text import Text
    except (ImportError, MemoryError):
        print(message, file=sys.stderr)
        return
    first, newline, rest = message.partition("\n")
    text = Text(first, style="bold red").append(newline + rest, style="not bold default")
    Console(stderr=True, soft_wrap=True).print(text)
