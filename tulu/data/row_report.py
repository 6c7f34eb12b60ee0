"""What became of the rows of a mix: how many were used, truncated or dropped, why, and which were the first."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of one source's rows: rows = used + dropped; truncated and noted rows are among the used.

    A nested row counts as the plain rows it holds: conversations of a message tree, pairs of a row with several answers.
    """

    name: str
    rows: int
    used: int
    truncated: Tally = Tally()
    dropped: Mapping[str, Tally] = field(default_factory=dict)
    """Dropped rows by reason."""
    noted: Mapping[str, Tally] = field(default_factory=dict)
    """Rows that are odd and used all the same, by what is odd."""
    tokens: int = 0
    """Tokens that the used rows take in a batch, where a shared prompt stands once."""
    trained: int = 0
    """Tokens whose log-probs enter the loss."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the rows of a mix, source by source; the totals are sums over the sources."""

    sources: tuple[SourceReport, ...]

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def used(self) -> int:
        return sum(source.used for source in self.sources)

    @property
    def tokens(self) -> int:
        return sum(source.tokens for source in self.sources)

    @property
    def trained(self) -> int:
        return sum(source.trained for source in self.sources)

    @property
    def truncated(self) -> Tally:
        return sum((source.truncated for source in self.sources), Tally())

    @property
    def dropped(self) -> dict[str, Tally]:
        return _merge(source.dropped for source in self.sources)

    @property
    def noted(self) -> dict[str, Tally]:
        return _merge(source.noted for source in self.sources)

    def lines(self) -> list[str]:
        """Lines for a log: the totals, then one line for each thing that a person should know."""
        lines = [f"{self.used} of {self.rows} rows used"]
        lines += [f"dropped, {reason}: {tally}" for reason, tally in self.dropped.items()]
        lines += [f"truncated: {self.truncated}"] if self.truncated.count else []
        return lines + [f"{reason}: {tally}" for reason, tally in self.noted.items()]

    def show(self) -> None:
        """Log the totals, and as warnings which rows are not used as they stand."""
        totals, *rest = self.lines()
        log.info(totals)
        for line in rest:
            log.warning(line)

    def as_dict(self) -> dict[str, Any]:
        """The counts, for manifest.json."""
        return {
            "rows": self.rows,
            "used": self.used,
            "tokens": self.tokens,
            "trained": self.trained,
            "truncated": self.truncated.count,
            "dropped": {reason: tally.count for reason, tally in self.dropped.items()},
            "noted": {reason: tally.count for reason, tally in self.noted.items()},
        }


def _merge(mappings: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    total: dict[str, Tally] = defaultdict(Tally)
    for mapping in mappings:
        for reason, tally in mapping.items():
            total[reason] += tally
    return dict(total)


@dataclass
class Counter:
    """Counts what becomes of a source's rows while they are read."""

    name: str
    rows: int = 0
    truncated: Tally = Tally()
    dropped: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    noted: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def drop(self, reason: str, row_id: str) -> None:
        self.dropped[reason] += Tally(1, (row_id,))

    def note(self, reason: str, row_id: str) -> None:
        self.noted[reason] += Tally(1, (row_id,))

    def truncate(self, row_id: str) -> None:
        self.truncated += Tally(1, (row_id,))

    def report(self, tokens: int, trained: int) -> SourceReport:
        used = self.rows - sum(tally.count for tally in self.dropped.values())
        return SourceReport(self.name, self.rows, used, self.truncated, dict(self.dropped), dict(self.noted), tokens, trained)

    def nothing_left(self) -> str:
        """The text of the error that no row can be used, with the reasons."""
        reasons = "; ".join(f"{reason}: {tally}" for reason, tally in self.dropped.items())
        return f"{self.name}: none of {self.rows} rows can be used: {reasons}"


def source_report(raw: Mapping[str, Any]) -> SourceReport:
    """A report out of the JSON of `dataclasses.asdict`."""
    tallies = {key: {reason: _tally(entry) for reason, entry in raw[key].items()} for key in ("dropped", "noted")}
    return SourceReport(
        raw["name"], raw["rows"], raw["used"], _tally(raw["truncated"]), **tallies, tokens=raw["tokens"], trained=raw["trained"]
    )


def _tally(raw: Mapping[str, Any]) -> Tally:
    return Tally(raw["count"], tuple(raw["first"]))
