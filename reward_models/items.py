"""The items of a benchmark of reward models: a prompt, its right answers and its wrong ones."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tulu.reward_models.sections import Data, Scored, Summary, summarize
from tulu.types import Message

_MARKUP = re.compile(r"^\s*(?:[-*+]|\d+[.)]|#{1,6})\s|\*\*[^*\n]+\*\*|^```", re.MULTILINE)
"""Markdown that a person sees as formatting: list items, headings, bold, code fences."""

Answer = tuple[Message, ...]
"""The messages that follow the prompt: one of the assistant, or more where an agent also reads what its tools return."""


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

    def scored(self, scores: Sequence[float], credit: float | None = None) -> Scored:
        """The item with the scores of its answers, in their order."""
        split = len(self.chosen)
        return Scored(self.id, self.subset, tuple(scores[:split]), tuple(scores[split:]), credit, self.where)


def text(answer: Answer) -> str:
    """The contents of an answer's messages, joined by blank lines."""
    return "\n\n".join(message["content"] for message in answer)


def length(answer: Answer) -> int:
    """Characters of an answer."""
    return sum(len(message["content"]) for message in answer)


def markup(answer: Answer) -> int:
    """Marks of Markdown formatting in an answer."""
    return len(_MARKUP.findall(text(answer)))


BASELINES = {
    "longer wins": lambda answer: float(length(answer)),
    "shorter wins": lambda answer: float(-length(answer)),
}
"""Scores that a model would give that sees only length: a subset that one of them solves says little about quality."""


def baselines(items: Sequence[Item], data: Data) -> dict[str, Summary]:
    """RewardBench's figures for each baseline, by the same rules (level answers get no credit as pairs)."""
    return {
        name: summarize([item.scored([rule(answer) for answer in item.answers]) for item in items], data)
        for name, rule in BASELINES.items()
    }
