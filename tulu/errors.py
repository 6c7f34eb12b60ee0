"""The errors that are no bugs of this project; the command line prints their messages without a traceback."""

import difflib
import re
from collections.abc import Iterable, Sequence


def first_few(names: Sequence[str], most: int = 4) -> str:
    """The first of several names, and how many more there are, as messages list them."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def near_names(word: str, names: Iterable[str]) -> list[str]:
    """The names that a word may stand for; none where none is close to it.

    Names that the word abbreviates come before one that is only spelled alike: olmo2 is olmo2-instruct or olmo2-13b and no
    misspelt olmoe-0125, max_len is max_length, olmo3-instruct is olmo3-7b-instruct, and lr is learning_rate. Those that go on in
    words come before those that go on in a size or a date.
    """
    known = list(dict.fromkeys(names))
    meant = [name for name in known if _abbreviates(_parts(word), _parts(name))] if len(word) > 1 else []
    same = {name.lower(): name for name in known}
    if word.lower() in same:
        meant = [same[word.lower()]]
    meant.sort(key=lambda name: any(part[0].isdigit() for part in _parts(name)[1:]))
    return meant or difflib.get_close_matches(word, known, n=1, cutoff=0.6)


def nearest(word: str, names: Iterable[str]) -> str:
    """`; did you mean X?` with the names that a word may stand for, or nothing where none is close to it."""
    meant = near_names(word, names)
    more = f" ({len(meant) - 4} more)" if len(meant) > 4 else ""
    return f"; did you mean {' or '.join(meant[:4])}{more}?" if meant else ""


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[-_.:/ ]+", name.lower()) if part]


def _abbreviates(word: Sequence[str], name: Sequence[str]) -> bool:
    """Whether each part of a word begins a part of the name, in order and from its first one, or they are its initials."""
    if len(word) == 1 and len(name) > 1 and word[0] == "".join(part[0] for part in name):
        return True
    if not word or not name or not name[0].startswith(word[0]):
        return False
    rest = iter(name[1:])
    return all(any(part.startswith(short) for part in rest) for short in word[1:])


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


class EngineMissing(EngineError):
    """An engine that cannot be started on this machine, such as a vLLM that cannot be imported; nothing was sampled."""

    exit_code = 2


class TrainingError(TuluError):
    """Numbers of a training run that are no longer finite, or weights that never moved; no model was written."""


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
