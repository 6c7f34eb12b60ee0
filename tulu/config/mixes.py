"""How many rows a mix has and how long they are, as far as that is known without a network."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tulu.config.known import BYTES_A_TOKEN, KnownData, known_data, known_mix
from tulu.config.schema import Source
from tulu.config.stages import RowKind
from tulu.config.tasks import GENERATED


@dataclass(frozen=True)
class Mix:
    """A mix of data sets."""

    rows: int | None
    """Rows of one epoch; None where those of a data set are not known."""
    tokens: float | None
    """Mean tokens of a conversation, of the rows of which they are known; None where they are of none."""
    about: bool
    """Whether some of the rows are no exact count."""
    unknown: tuple[str, ...]
    """The data sets of which the rows are not known."""
    sources: tuple[str, ...]
    """Where rows and lengths of released data sets are from, one for each of them."""


def mix_of(sources: Sequence[Source], kind: RowKind) -> Mix:
    """What is known of a mix: counts that it states, generated tasks, local JSONL files, and released data sets."""
    whole = [source for source in sources if source.fraction is not None]
    together = known_mix([source.name for source in whole]) if len(whole) == len(sources) else None
    if together is not None and {source.fraction for source in whole} == {1.0}:
        return Mix(together.rows, together.tokens, together.about, (), (together.source,))
    found = [(source, _known(source, kind)) for source in sources]
    unknown = tuple(source.name for source, known in found if source.count is None and known is None)
    taken = [(known, _taken(source, known)) for source, known in found]
    measured = [(known.tokens, rows) for known, rows in taken if known is not None and known.tokens is not None and rows]
    weight = sum(rows for _, rows in measured)
    return Mix(
        rows=None if unknown else round(sum(rows or 0.0 for _, rows in taken)),
        tokens=sum(tokens * rows for tokens, rows in measured) / weight if weight else None,
        about=any(known is not None and known.about and source.count is None for source, known in found),
        unknown=unknown,
        sources=tuple(f"{source.name}: {known.source}" for source, known in found if known is not None and known.source),
    )


def _taken(source: Source, known: KnownData | None) -> float | None:
    """Rows of a data set that a mix takes."""
    if source.count is not None:
        return float(source.count)
    return None if known is None else known.rows * (source.fraction or 1.0)


def _known(source: Source, kind: RowKind) -> KnownData | None:
    """The rows of a whole data set and their length."""
    task, colon, split = source.name.partition(":")
    if colon and task in GENERATED:
        rows = GENERATED[task].get(split)
        return None if rows is None else KnownData(rows, None, "")
    path = Path(source.name).expanduser()
    if path.is_file():
        return _of_file(path, kind) if ".jsonl" in path.name else None
    return known_data(source.name) if source.split == "train" and source.subset is None else None


def _of_file(path: Path, kind: RowKind) -> KnownData | None:
    rows = size = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            if line.strip():
                rows, size = rows + 1, size + len(line)
    copies = 2 if kind == "pairs" else 1
    return KnownData(rows, size / rows / copies / BYTES_A_TOKEN if rows else None, "")
