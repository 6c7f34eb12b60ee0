"""Finds held-out problems in training data: the share of a problem's n-grams that one training row holds, in one pass.

The method is that of open-instruct decontamination/index.py and search.py @ e6c3044a, but exact, where its Elasticsearch returns
at most 100 rows a query. n and threshold have no default there; 8 and 50 % are those of the Tülu 3 paper.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from tulu.config.parts import Source
from tulu.config.stages import RowKind
from tulu.data.faults import Unusable
from tulu.data.formats import parse_conversation, parse_evaluation_prompt, parse_problem, parse_text
from tulu.data.mixing import sample_rows
from tulu.data.preferences import pair_rows, parse_pair
from tulu.data.row_report import RowReport
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.types import Message

log = logging.getLogger("tulu")

_TOKEN = re.compile(r"\w+|[^\w\s]")
"""A word or a mark: What | is | 3 | + | 4 | ?"""
N_GRAM = 8
"""Tokens of an n-gram."""
THRESHOLD = 0.5
"""Share of a problem's tokens of which a row must hold more to give it away; half of them alone is not enough."""
SHORTEST = 4
"""Tokens of the shortest problem that is searched for; shorter ones are in too much text by chance."""


@dataclass(frozen=True, slots=True)
class Match:
    """A held-out problem that one training row gives away."""

    problem: str
    """Id of the held-out row."""
    row: str
    """Id of the training row."""
    share: float
    """Share of the problem's tokens that lie in n-grams of that one row."""


class Index:
    """N-grams of the held-out problems; a problem shorter than n is one n-gram of its own length."""

    def __init__(self, problems: Iterable[tuple[str, Sequence[str]]], n: int = N_GRAM, threshold: float = THRESHOLD) -> None:
        """Index problems, each given by its id and its user's turns."""
        self.ids: list[str] = []
        self.lengths: list[int] = []
        self.too_short: list[str] = []
        self._threshold = threshold
        self._words: dict[str, int] = {}
        self._places: dict[int, dict[tuple[int, ...], list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for problem_id, turns in problems:
            tokens = tokens_of("\n".join(turns))
            if len(tokens) < SHORTEST:
                self.too_short.append(problem_id)
                continue
            numbers = [self._words.setdefault(token, len(self._words)) for token in tokens]
            size = min(n, len(numbers))
            for place in range(len(numbers) - size + 1):
                self._places[size][tuple(numbers[place : place + size])].append((len(self.ids), place))
            self.ids.append(problem_id)
            self.lengths.append(len(numbers))

    def search(self, row_id: str, turns: Sequence[str]) -> list[Match]:
        """The problems of whose tokens the row's n-grams cover more than the threshold, most covered first."""
        covered: dict[int, set[int]] = defaultdict(set)
        for run in self._runs_of_indexed_words(turns):
            for size, places in self._places.items():
                for start in range(len(run) - size + 1):
                    for number, place in places.get(run[start : start + size], ()):
                        covered[number].update(range(place, place + size))
        shares = {number: len(tokens) / self.lengths[number] for number, tokens in covered.items()}
        matches = [Match(self.ids[number], row_id, share) for number, share in shares.items() if share > self._threshold]
        return sorted(matches, key=lambda match: -match.share)

    def _runs_of_indexed_words(self, turns: Sequence[str]) -> Iterator[tuple[int, ...]]:
        """Stretches of words that occur in problems, as numbers: no n-gram can reach over any other word."""
        for turn in turns:
            for is_indexed, run in groupby(tokens_of(turn), key=self._words.__contains__):
                if is_indexed:
                    yield tuple(self._words[token] for token in run)


def tokens_of(text: str) -> list[str]:
    """Words and marks, in lower case."""
    return _TOKEN.findall(text.lower())


def index_of(sources: Sequence[Source], seed: int = 1, n: int = N_GRAM, threshold: float = THRESHOLD) -> Index:
    """The index of the problems of evaluation sets; DataError where there are none."""
    rows = (row for source in sources for row in sample_rows(source, seed, "rlvr"))
    report = RowReport("held-out questions")
    asked = ((row.id, report.read(row, "rlvr", lambda each: user_turns(parse_evaluation_prompt(each)), list)) for row in rows)
    index = Index(((row_id, turns) for row_id, turns in asked if turns is not None), n, threshold)
    if report.dropped:
        log.warning("%s: %s", report.name, "; ".join(report.lines()))
    if not index.ids:
        raise DataError(f"{', '.join(source.name for source in sources)}: no question of {SHORTEST} words or more to look for")
    return index


def matches(index: Index, rows: Iterable[Row], kind: RowKind) -> list[Match]:
    """The held-out problems that the training rows give away."""
    return [match for row in rows for match in index.search(row.id, searched_turns(row, kind))]


def searched_turns(row: Row, kind: RowKind) -> list[str]:
    """The user's turns of a training row, as open-instruct indexes them; plain text whole; nothing of an unusable row."""
    try:
        if kind == "text":
            return [parse_text(row)]
        if kind == "sft":
            return user_turns(parse_conversation(row).messages)
        if kind == "rlvr":
            return user_turns(parse_problem(row, "any").messages)
    except Unusable:
        return []
    turns: dict[str, None] = {}
    for plain in pair_rows(row):
        with suppress(Unusable):
            pair = parse_pair(plain)
            turns |= dict.fromkeys([*user_turns(pair.chosen), *user_turns(pair.rejected)])
    return list(turns)


def user_turns(messages: Sequence[Message]) -> list[str]:
    """The contents of the user's messages."""
    return [message["content"] for message in messages if message["role"] == "user"]
