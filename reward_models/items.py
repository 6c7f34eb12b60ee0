"""The items of a benchmark of reward models: a prompt, its right answers and its wrong ones, and what they score."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tulu.data.faults import odd_rows
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message

T = TypeVar("T")

Answer = tuple[Message, ...]
"""The messages that follow the prompt: one of the assistant, or more where an agent also reads what its tools return."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one item's right (chosen) and wrong (rejected) answers; NaN where a score is missing."""

    id: str
    subset: str
    chosen: tuple[float, ...]
    rejected: tuple[float, ...]
    credit: float | None = None
    """What a judge's verdict is worth, between 0 and 1; None where the scores are compared."""
    where: str = ""
    """Where the item stands, as FILE:LINE, for messages."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of its row in scores.jsonl: token counts, tokens cut, a judge's replies."""

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores of all answers: first the right ones, then the wrong ones."""
        return self.chosen + self.rejected

    @property
    def missing(self) -> bool:
        """Whether a score is absent or NaN; such an item gets no credit, and is counted."""
        return self.credit is None and any(math.isnan(score) for score in self.scores)


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a preference set."""

    id: str
    subset: str
    prompt: tuple[Message, ...]
    chosen: tuple[Answer, ...]
    rejected: tuple[Answer, ...]
    where: str = ""
    """Where the row lies: FILE:LINE or NAME:INDEX."""

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All chosen answers, then all rejected ones."""
        return self.chosen + self.rejected

    def scored(self, scores: Sequence[float], credit: float | None = None, details: Mapping[str, Any] | None = None) -> Scored:
        """The item with the scores of its answers, in their order."""
        split = len(self.chosen)
        right, wrong = tuple(scores[:split]), tuple(scores[split:])
        return Scored(self.id, self.subset, right, wrong, credit, self.where, details or {})


def text(answer: Answer) -> str:
    """The contents of an answer's messages, joined by blank lines."""
    return "\n\n".join(message["content"] for message in answer)


def parse_rows(rows: Sequence[Row], parse: Callable[[Row], T]) -> list[T]:
    """The result of `parse` for every row. Raises DataError, which counts the rows that cannot be read or parsed."""
    return parse_parts([(rows, parse)])


def parse_parts(parts: Iterable[tuple[Sequence[Row], Callable[[Row], T]]]) -> list[T]:
    """The same for several files at once, each with what parses its rows."""
    results: list[T] = []
    problems: list[str] = []
    for rows, parse in parts:
        # A row is read when it is taken by its index, so that a broken line does not end the loop.
        for index in range(len(rows)):
            try:
                results.append(parse(rows[index]))
            except DataError as error:
                problems.append(str(error))
    if problems:
        raise odd_rows(problems, len(results) + len(problems), "used", "Nothing was scored: correct or remove these rows first.")
    return results
