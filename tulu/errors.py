"""The errors that are no bugs of this project; the command line prints their messages without a traceback."""

from collections.abc import Sequence


def first_few(names: Sequence[str], most: int = 4) -> str:
    """The first of several names, and how many more there are, as messages list them."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


class TuluError(Exception):
    """A failure with a message for a person: what is wrong, where (file, line, key) and what to do about it."""

    exit_code = 1


class RecipeError(TuluError):
    """A recipe or an option that cannot be run; the message lists every problem at once."""

    exit_code = 2


class DataError(TuluError):
    """Rows that cannot be read or used; the message names the file and the line."""

    exit_code = 2


class EngineError(TuluError):
    """A rollout engine that failed, has old weights, or returned completions that cannot be trusted."""


class TrainingError(TuluError):
    """Numbers of a training run that are no longer finite; the run stopped before they could reach a checkpoint or a model."""


class MemoryShortage(TuluError):
    """A GPU or a machine that has not enough memory; the message says what to lower, and by how much."""


class CheckpointError(TuluError):
    """A run directory that cannot be written."""


class ResumeError(CheckpointError):
    """A folder that the command does not go on in: it is damaged, or was begun with something else. Nothing was done."""

    exit_code = 2


class InUseError(TuluError):
    """A folder in which another command is at work; the message says which one. Nothing was done."""

    exit_code = 2
