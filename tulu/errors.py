"""What can go wrong, by whose boundary it crossed; the command line prints these without a traceback."""


class TuluError(Exception):
    """A failure with a message for a person: what, where (file, line, key) and the cure."""

    exit_code = 1


class RecipeError(TuluError):
    """A recipe or an option that cannot be run; lists every problem at once."""

    exit_code = 2


class DataError(TuluError):
    """Rows that cannot be read or used; names the file and the line."""

    exit_code = 2


class EngineError(TuluError):
    """A rollout engine that failed, is stale, or returned what cannot be trusted."""


class CheckpointError(TuluError):
    """A run directory that cannot be written, read or continued."""
