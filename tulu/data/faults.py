"""Rows that cannot be used: why, for a count by reason, and what is wrong with this very row, for a person."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tulu.errors import DataError

T = TypeVar("T")
_NAMED = 10
"""Odd rows that a message names; the rest are counted."""


class Unusable(DataError):
    """A row that cannot be used. Rows are counted under its reason; where every row is needed, it is an error."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        """What such rows have in common: one of few texts, without anything of the row."""
        self.detail = detail or reason
        """What is wrong with this very row, and the cure, where the reason does not say it."""


class Misfit(Unusable):
    """A row in which a value has no known form; its text, unlike that of other unusable rows, names row, column and cure."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)
        self.args = (text,)


class NoForm(Misfit):
    """A row whose columns are those of no form at all. If it is the first of a file, the file is of another kind."""


def valid_text(text: str) -> str:
    """The text itself; Unusable where it holds half a surrogate pair, which JSON can spell and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable("its text is not valid Unicode") from None
    return text


def odd_rows(problems: Sequence[str], total: int, verb: str, cure: str) -> DataError:
    """The error that rows cannot be used: all are counted (`2 of 40 rows cannot be graded`), and the first ones named.

    Each problem begins with its row's place.
    """
    more = [f"… and {len(problems) - _NAMED} more"] if len(problems) > _NAMED else []
    return DataError("\n".join([f"{len(problems)} of {total} rows cannot be {verb}:", *problems[:_NAMED], *more, cure]))


def read_each(rows: Sequence[T], places: Iterable[int]) -> Iterator[T]:
    """The rows at these places, each made when it is asked for.

    Where one cannot be read (its line is no JSON), the others are read too, so that one DataError counts all of them.
    """
    left = iter(places)
    for done, place in enumerate(left):
        try:
            row = rows[place]
        except DataError as error:
            raise _unreadable(rows, left, done, error) from None
        yield row


def _unreadable(rows: Sequence[T], left: Iterable[int], done: int, first: DataError) -> DataError:
    problems, total = [str(first)], done + 1
    for place in left:
        total += 1
        try:
            rows[place]
        except DataError as error:
            problems.append(str(error))
    # One that is the same for all is the file's and no row's; of a row that is copied there are several of the same.
    distinct = list(dict.fromkeys(problems))
    return (
        first if len(distinct) == 1 else odd_rows(distinct, total, "read", "Nothing was done: mend or remove these lines first.")
    )
