"""What became of the rows of a mix: how many were used, truncated or dropped, why, and which were the first."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tulu.config.stages import RowKind
from tulu.data.columns import Columns
from tulu.data.faults import NoForm, Unusable
from tulu.data.sources import Row

T = TypeVar("T")
log = logging.getLogger("tulu")

NAMED = 5
"""How many rows are named by their id for each reason."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows there are of one kind, the ids of the first, and what is wrong with the very first."""

    count: int = 0
    first: tuple[str, ...] = ()
    example: str = ""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, (*self.first, *other.first)[:NAMED], self.example or other.example)

    def __str__(self) -> str:
        """The count, the ids and the example, as in `31 (rows.jsonl:143, :220, ...); the first: margin: nan`.

        A file's name that repeats is left out.
        """
        if not self.first:
            return str(self.count)
        example = f"; the first: {self.example}" if self.example else ""
        shown: list[str] = []
        before = ""
        for row_id in self.first:
            name, colon, place = row_id.rpartition(":")
            shown.append(f"{colon}{place}" if name == before else row_id)
            before = name
        return f"{self.count} ({', '.join(shown)}{', ...' if self.count > len(self.first) else ''}){example}"


@dataclass
class RowReport:
    """What became of the rows of a source or of a mix, counted while they are read.

    Every row is used or dropped; truncated and noted rows are among the used. A nested row counts as the plain rows it holds:
    conversations of a message tree, pairs of a row with several answers.
    """

    name: str
    rows: int = 0
    tokens: int = 0
    """Tokens that the used rows take in a batch, where a shared prompt stands once."""
    trained: int = 0
    """Tokens whose log-probs enter the loss."""
    proven: int = 0
    """Used rows whose ground truth is an answer that grades itself right; other ground truths are only checked."""
    truncated: Tally = Tally()
    lost_end: Tally = Tally()
    """Truncated rows that were cut within a trained turn, so that its end token is not trained."""
    dropped: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Dropped rows by reason."""
    noted: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Rows that are odd and used all the same, by what is odd."""

    @property
    def used(self) -> int:
        return self.rows - sum(tally.count for tally in self.dropped.values())

    def read(
        self,
        row: Row,
        kind: RowKind,
        parse: Callable[[Row], T],
        contents_of: Callable[[T], Sequence[str]],
        begins: bool = True,
    ) -> T | None:
        """What a row means, counted; None where it cannot be used. Columns that say what its contents do not are noted.

        DataError where already the columns of the first row are those of another kind of data. `begins` is false where
        another report counts the rows before.
        """
        self.rows += 1
        columns = Columns(row.columns)
        try:
            value = parse(replace(row, columns=columns))
        except Unusable as error:
            if begins and self.rows == 1 and isinstance(error, NoForm):
                raise
            self.drop(error.reason, row.id, error.detail)
            return None
        for name in columns.unread(kind, contents_of(value)):
            self.note(f"column {name} is not read", row.id)
        return value

    def drop(self, reason: str, row_id: str, detail: str = "") -> None:
        """Count a row that is not used. `detail` says what is wrong with this one, where the reason does not."""
        self.dropped[reason] += Tally(1, (row_id,), "" if detail == reason else detail)

    def note(self, reason: str, row_id: str, detail: str = "") -> None:
        """Count a row that is odd and used. `detail` says what is odd of this one, where the reason does not."""
        self.noted[reason] += Tally(1, (row_id,), detail)

    def truncate(self, row_id: str, lost_end: bool) -> None:
        """Count a row that was cut, within a trained turn or between turns."""
        self.truncated += Tally(1, (row_id,))
        if lost_end:
            self.lost_end += Tally(1, (row_id,))

    def add(self, other: "RowReport") -> None:
        """Count the rows of another report as well, as if they had been read behind these."""
        self.rows += other.rows
        self.tokens += other.tokens
        self.trained += other.trained
        self.proven += other.proven
        self.truncated += other.truncated
        self.lost_end += other.lost_end
        for sums, tallies in ((self.dropped, other.dropped), (self.noted, other.noted)):
            for reason, tally in tallies.items():
                sums[reason] += tally

    def nothing_left(self) -> str:
        """The text of the error that no row can be used, with the reasons."""
        reasons = "; ".join(f"{reason}: {tally}" for reason, tally in self.dropped.items())
        return f"{self.name}: none of {self.rows} rows can be used: {reasons}"

    def lines(self) -> list[str]:
        """Lines for a log: the totals, then one line for each thing that a person should know."""
        lines = [f"{self.used} of {self.rows} rows used", *self.alarms()]
        lines += [f"dropped, {reason}: {tally}" for reason, tally in self.dropped.items()]
        lines += [f"truncated: {self.truncated}"] if self.truncated.count else []
        lines += [f"lost their end: {self.lost_end}"] if self.lost_end.count else []
        return lines + [f"{reason}: {tally}" for reason, tally in self.noted.items()]

    def alarms(self) -> list[str]:
        """A line that says so where more than half of the rows are dropped."""
        dropped = self.rows - self.used
        return (
            [f"WARNING: more than half of {self.name} is dropped, {dropped} of {self.rows} rows"]
            if 2 * dropped > self.rows
            else []
        )

    def golds(self) -> str:
        """How many of the ground truths that are used grade themselves right; the others are no answers and only checked."""
        checked = self.used - self.proven
        if checked == self.used:
            return f"ground truths: {checked} checked by their verifiers, which do not say how a right answer is written"
        line = f"ground truths that grade themselves right: {self.proven} of {self.used} ({self.proven / self.used:.1%})"
        return f"{line}; of the other {checked} nobody says how a right answer is written" if checked else line

    def show(self) -> None:
        """Log the totals, and as warnings which rows are not used as they stand."""
        totals, *rest = self.lines()
        log.info(totals)
        for line in rest:
            log.warning(line)


@dataclass
class MixReport(RowReport):
    """The sum of the reports of a mix's sources."""

    sources: tuple[RowReport, ...] = ()

    def alarms(self) -> list[str]:
        """Those of the sources, since a large one would hide a small one."""
        return [line for source in self.sources for line in source.alarms()]


def total(sources: Iterable[RowReport]) -> MixReport:
    """The report of a mix from those of its sources."""
    mix = MixReport("total", sources=tuple(sources))
    for source in mix.sources:
        mix.add(source)
    return mix
