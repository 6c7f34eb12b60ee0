"""The errors that are no bugs of this project; the command line prints their messages without a traceback."""


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


class CheckpointError(TuluError):
    """A run directory that cannot be written, read or continued."""
