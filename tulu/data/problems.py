"""Rows to problems: a prompt, and ground truths that the verifiers can use, checked before anything is sampled."""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, overload

from tulu.config.schema import Source
from tulu.data.chat import encode_prompts
from tulu.data.formats import Question, Unusable, question
from tulu.data.mixing import checked, drawn
from tulu.data.row_report import Counter, Report, Tally
from tulu.data.sources import Row
from tulu.errors import DataError, RecipeError
from tulu.types import Problem
from tulu.verifiers.registry import check_gold, check_name
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")


class Problems(Sequence[Problem]):
    """The problems of a mix, what became of its rows, and a hash of it all."""

    def __init__(self, problems: Sequence[Problem], report: Report) -> None:
        self._problems = tuple(problems)
        self.report = report

    @cached_property
    def digest(self) -> str:
        """32 hex digits over ids, prompts, ground truths and verifiers, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for each in self._problems:
            text = json.dumps([each.id, list(each.prompt), each.ground_truth, list(each.verifiers)], default=str)
            digest.update(text.encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._problems)

    @overload
    def __getitem__(self, index: int) -> Problem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Problem, ...]: ...
    def __getitem__(self, index: int | slice) -> Problem | tuple[Problem, ...]:
        return self._problems[index]


def problems(
    sources: Sequence[Source],
    tokenizer: "PreTrainedTokenizerBase",
    max_prompt: int,
    verifier: str | None = None,
    seed: int = 1,
    judged: bool = False,
) -> Problems:
    """Prompts of at most max_prompt tokens, each with a ground truth that its verifiers can use.

    `verifier` scores every row; None takes each row's own. Unknown verifiers are one RecipeError that names them all, and so
    is the verifier reward_model, unless the caller has one to ask (`judged`).
    """
    if verifier is not None:
        _check_verifier(verifier, judged)
    read = [_questions(source, verifier, seed) for source in checked(sources)]
    _check_verifiers([entry for _, entries in read for entry in entries], judged)
    found: list[Problem] = []
    reports = []
    for counter, entries in read:
        kept = _with_prompts(_graded(entries, counter), counter, tokenizer, max_prompt)
        if not kept:
            raise DataError(counter.nothing_left())
        found += kept
        reports.append(counter.report(sum(len(each.prompt) for each in kept), 0))
    return Problems(found, Report(tuple(reports)))


def _questions(source: Source, verifier: str | None, seed: int) -> tuple[Counter, list[tuple[Row, Question]]]:
    counter = Counter(source.name)
    entries: list[tuple[Row, Question]] = []
    for row in drawn(source, seed, "rlvr"):
        counter.rows += 1
        try:
            entries.append((row, question(row, verifier)))
        except Unusable as reason:
            counter.drop(str(reason), row.id)
    return counter, entries


def _check_verifier(name: str, judged: bool) -> None:
    if not (judged and name.lower() == REWARD_MODEL):
        check_name(name)


def _check_verifiers(entries: Sequence[tuple[Row, Question]], judged: bool) -> None:
    places: dict[str, Tally] = defaultdict(Tally)
    for row, asked in entries:
        for name in asked.verifiers:
            places[name] += Tally(1, (row.id,))
    wrong = []
    for name, tally in places.items():
        try:
            _check_verifier(name, judged)
        except RecipeError as error:
            wrong.append(f"{error}; rows: {tally}")
    if wrong:
        raise RecipeError("\n".join(wrong))


def _graded(entries: Sequence[tuple[Row, Question]], counter: Counter) -> list[tuple[Row, Question]]:
    """Those whose ground truths their verifiers can use; the others would fail when they are graded, and the first of each
    kind is told with its reason."""
    kept = []
    told: set[str] = set()
    for row, asked in entries:
        truths = asked.ground_truth if len(asked.verifiers) > 1 else [asked.ground_truth]
        try:
            for name, truth in zip(asked.verifiers, truths, strict=True):
                check_gold(name, truth)
        except DataError as error:
            what = f"{' and '.join(asked.verifiers)} cannot use the ground truth"
            if what not in told:
                log.warning("%s: %s", row.id, error)
                told.add(what)
            counter.drop(what, row.id)
        else:
            kept.append((row, asked))
    return kept


def _with_prompts(
    entries: Sequence[tuple[Row, Question]], counter: Counter, tokenizer: "PreTrainedTokenizerBase", max_prompt: int
) -> list[Problem]:
    kept = []
    encoded = encode_prompts(tokenizer, [asked.messages for _, asked in entries])
    for (row, asked), prompt in zip(entries, encoded, strict=True):
        if prompt.problem:
            counter.drop(f"the template refuses it: {prompt.problem}", row.id)
        elif len(prompt.tokens) > max_prompt:
            counter.drop(f"prompt longer than {max_prompt} tokens", row.id)
        else:
            kept.append(Problem(row.id, asked.messages, prompt.tokens, asked.ground_truth, asked.verifiers, row.columns))
    return kept
