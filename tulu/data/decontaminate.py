"""Held-out questions in training data: exact n-gram coverage by one training row, in one pass, with no limit on hits.

reference: open-instruct decontamination/index.py and search.py @ e6c3044a, whose Elasticsearch returns at most 100 rows a query;
n and threshold have no default there, 8 and 50 % are those of the Tülu 3 paper.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tulu.config.schema import Source
from tulu.data.formats import Kind, Unusable, asked, conversation, pair, question, text
from tulu.data.mixing import drawn
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message

_TOKEN = re.compile(r"\w+|[^\w\s]")
N_GRAM = 8
THRESHOLD = 0.5
SHORTEST = 4
"""Tokens; shorter questions are in too much text by chance."""


@dataclass(frozen=True, slots=True)
class Match:
    """A held-out question that one training row gives away."""

    question: str
    row: str
    share: float
    """Of the question's tokens that lie in n-grams of that one row."""


class Index:
    """N-grams of the held-out questions; a question shorter than n is one n-gram of its own length."""

    def __init__(self, questions: Iterable[tuple[str, Sequence[str]]], n: int = N_GRAM, threshold: float = THRESHOLD) -> None:
        self.ids: list[str] = []
        self.lengths: list[int] = []
        self.too_short: list[str] = []
        self._threshold = threshold
        self._words: dict[str, int] = {}
        self._places: dict[int, dict[tuple[int, ...], list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for question_id, turns in questions:
            tokens = tokens_of("\n".join(turns))
            if len(tokens) < SHORTEST:
                self.too_short.append(question_id)
                continue
            numbers = [self._words.setdefault(token, len(self._words)) for token in tokens]
            size = min(n, len(numbers))
            for place in range(len(numbers) - size + 1):
                self._places[size][tuple(numbers[place : place + size])].append((len(self.ids), place))
            self.ids.append(question_id)
            self.lengths.append(len(numbers))

    def search(self, row_id: str, turns: Sequence[str]) -> list[Match]:
        """Questions of whose tokens the row's n-grams cover at least the threshold, most first."""
        covered: dict[int, set[int]] = defaultdict(set)
        for run in self._known_runs(turns):
            for size, places in self._places.items():
                for start in range(len(run) - size + 1):
                    for number, place in places.get(run[start : start + size], ()):
                        covered[number].update(range(place, place + size))
        shares = {number: len(tokens) / self.lengths[number] for number, tokens in covered.items()}
        found = [Match(self.ids[number], row_id, share) for number, share in shares.items() if share >= self._threshold]
        return sorted(found, key=lambda match: -match.share)

    def _known_runs(self, turns: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """Stretches of words that questions use: no n-gram can reach over any other word."""
        for turn in turns:
            run: list[int] = []
            for token in tokens_of(turn):
                number = self._words.get(token)
                if number is not None:
                    run.append(number)
                elif run:
                    yield tuple(run)
                    run = []
            if run:
                yield tuple(run)


def tokens_of(text: str) -> list[str]:
    """Words and marks, in lower case."""
    return _TOKEN.findall(text.lower())


def index_of(sources: Sequence[Source], seed: int = 1, n: int = N_GRAM, threshold: float = THRESHOLD) -> Index:
    """The questions of evaluation sets; DataError where there are none."""
    rows = [row for source in sources for row in drawn(source, seed, "rlvr")]
    index = Index(((row.id, user_turns(asked(row))) for row in rows), n, threshold)
    if not index.ids:
        raise DataError(f"{', '.join(source.name for source in sources)}: no question of {SHORTEST} words or more to look for")
    return index


def matches(index: Index, rows: Iterable[Row], kind: Kind) -> list[Match]:
    """What the training rows give away."""
    return [match for row in rows for match in index.search(row.id, trained_questions(row, kind))]


def trained_questions(row: Row, kind: Kind) -> list[str]:
    """The user's turns of a training row, as open-instruct indexes them; plain text whole."""
    try:
        if kind == "text":
            return [text(row)]
        if kind == "sft":
            return user_turns(conversation(row))
        if kind == "pairs":
            sides = pair(row)
            return list(dict.fromkeys([*user_turns(sides.chosen), *user_turns(sides.rejected)]))
        return user_turns(question(row, "any").messages)
    except Unusable:
        return []


def user_turns(messages: Sequence[Message]) -> list[str]:
    """What the user says."""
    return [message["content"] for message in messages if message["role"] == "user"]
