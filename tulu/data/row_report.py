"""What became of the rows of a mix: used, truncated, dropped and why, with the first ones named."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("tulu")

NAMED = 5
"""Rows that are named by their id for each reason."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How many rows, and the ids of the first."""

    count: int = 0
    first: tuple[str, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.count + other.count, (*self.first, *other.first)[:NAMED])

    def __str__(self) -> str:
        """`31 (rows.jsonl:143, :220, ...)`: a name that repeats is left out."""
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
    """One source: rows = used + dropped; truncated and noted rows are among the used."""

    name: str
    rows: int
    used: int
    truncated: Tally = Tally()
    dropped: Mapping[str, Tally] = field(default_factory=dict)
    """By reason."""
    noted: Mapping[str, Tally] = field(default_factory=dict)
    """Odd, and used all the same."""
    tokens: int = 0
    """In a row of the batch: a shared prompt once."""
    trained: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """A mix, source by source; the totals are sums over the sources."""

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
        return _merged(source.dropped for source in self.sources)

    @property
    def noted(self) -> dict[str, Tally]:
        return _merged(source.noted for source in self.sources)

    def lines(self) -> list[str]:
        """For a log: one line of totals, then one per thing that a person should know."""
        found = [f"{self.used} of {self.rows} rows used"]
        found += [f"dropped, {reason}: {tally}" for reason, tally in self.dropped.items()]
        found += [f"truncated: {self.truncated}"] if self.truncated.count else []
        return found + [f"{reason}: {tally}" for reason, tally in self.noted.items()]

    def show(self) -> None:
        """Tell the log; what is not used as it stands, as warnings."""
        totals, *rest = self.lines()
        log.info(totals)
        for line in rest:
            log.warning(line)

    def as_dict(self) -> dict[str, Any]:
        """For manifest.json."""
        return {
            "rows": self.rows,
            "used": self.used,
            "tokens": self.tokens,
            "trained": self.trained,
            "truncated": self.truncated.count,
            "dropped": {reason: tally.count for reason, tally in self.dropped.items()},
            "noted": {reason: tally.count for reason, tally in self.noted.items()},
        }


def _merged(mappings: Any) -> dict[str, Tally]:
    total: dict[str, Tally] = defaultdict(Tally)
    for mapping in mappings:
        for reason, tally in mapping.items():
            total[reason] += tally
    return dict(total)


@dataclass
class Counter:
    """Counts a source's rows while they are read."""

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
        """Why no row is left, for an error."""
        reasons = "; ".join(f"{reason}: {tally}" for reason, tally in self.dropped.items())
        return f"{self.name}: none of {self.rows} rows can be used: {reasons}"


def source_report(raw: Mapping[str, Any]) -> SourceReport:
    """Back from JSON."""
    tallies = {key: {reason: _tally(entry) for reason, entry in raw[key].items()} for key in ("dropped", "noted")}
    return SourceReport(
        raw["name"], raw["rows"], raw["used"], _tally(raw["truncated"]), **tallies, tokens=raw["tokens"], trained=raw["trained"]
    )


def _tally(raw: Mapping[str, Any]) -> Tally:
    return Tally(raw["count"], tuple(raw["first"]))
