"""What became of the rows of a mix: how many were used, truncated or dropped, why, and which were the first."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

log = logging.getLogger("tulu")

NAMED = 5
"""How many rows are named by their id for each reason."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows there are of one kind, and the ids of the first."""

    count: int = 0
    first: tuple[str, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, (*self.first, *other.first)[:NAMED])

    def __str__(self) -> str:
        """The count and the ids, as in `31 (rows.jsonl:143, :220, ...)`: a name that repeats is left out."""
        if not self.first:
            return str(self.count)
        shown: list[str] = []
        before = ""
        for row_id in self.first:
            name, colon, place = row_id.rpartition(":")
            shown.append(f"{colon}{place}" if name == before else row_id)
            before = name
        return f"{self.count} ({', '.join(shown)}{', ...' if self.count > len(self.first) else ''})"


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
    dropped: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Dropped rows by reason."""
    noted: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Rows that are odd and used all the same, by what is odd."""

    @property
    def used(self) -> int:
        return self.rows - sum(tally.count for tally in self.dropped.values())

    def drop(self, reason: str, row_id: str) -> None:
        self.dropped[reason] += Tally(1, (row_id,))

    def note(self, reason: str, row_id: str) -> None:
        self.noted[reason] += Tally(1, (row_id,))

    def truncate(self, row_id: str) -> None:
        self.truncated += Tally(1, (row_id,))

    def nothing_left(self) -> str:
        """The text of the error that no row can be used, with the reasons."""
        reasons = "; ".join(f"{reason}: {tally}" for reason, tally in self.dropped.items())
        return f"{self.name}: none of {self.rows} rows can be used: {reasons}"

    def lines(self) -> list[str]:
        """Lines for a log: the totals, then one line for each thing that a person should know."""
        lines = [f"{self.used} of {self.rows} rows used"]
        lines += [f"dropped, {reason}: {tally}" for reason, tally in self.dropped.items()]
        lines += [f"truncated: {self.truncated}"] if self.truncated.count else []
        return lines + [f"{reason}: {tally}" for reason, tally in self.noted.items()]

    def golds(self) -> str:
        """How many of the ground truths that are used grade themselves right; the others are no answers and only checked."""
        return f"ground truths that grade themselves right: {self.proven} of {self.used} ({self.proven / self.used:.1%})"

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


def total(sources: Iterable[RowReport]) -> MixReport:
    """The report of a mix from those of its sources."""
    mix = MixReport("total", sources=tuple(sources))
    for source in mix.sources:
        mix.rows += source.rows
        mix.tokens += source.tokens
        mix.trained += source.trained
        mix.proven += source.proven
        mix.truncated += source.truncated
        for sums, tallies in ((mix.dropped, source.dropped), (mix.noted, source.noted)):
            for reason, tally in tallies.items():
                sums[reason] += tally
    return mix
