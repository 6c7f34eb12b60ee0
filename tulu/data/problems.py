"""Rows to problems: each a prompt, and ground truths that its verifiers can use, checked before anything is sampled."""

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.options import BadGolds
from tulu.config.parts import Source
from tulu.data.chat import encode_prompts
from tulu.data.formats import ProblemText, parse_problem
from tulu.data.golds import faults, is_provable, stop_over_limit
from tulu.data.lazy import LazySequence
from tulu.data.left_out import ODD_ROLE, THOUGHTS, loss_of, odd_role
from tulu.data.mixing import check_sources, sample_rows
from tulu.data.row_report import MixReport, RowReport, Tally, total
from tulu.data.sources import Row
from tulu.errors import DataError, RecipeError
from tulu.types import Problem, Tools
from tulu.user_code import source_digests
from tulu.verifiers.contract import NO_SETTINGS, Mode, Settings
from tulu.verifiers.custom import is_custom
from tulu.verifiers.registry import check_name
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

ParsedRow = tuple[Row, ProblemText]
_LISTED = 20
"""Rows with an unusable ground truth that are logged one by one; the others are counted."""


class Problems(LazySequence[Problem]):
    """The problems of a mix, what became of its rows, and a hash of it all."""

    def __init__(self, problems: Sequence[Problem], report: MixReport) -> None:
        super().__init__(len(problems), problems.__getitem__)
        self.report = report

    @property
    def digest(self) -> str:
        """32 hex digits over ids, prompts, ground truths and verifiers, in order."""
        return self._hashed[0]

    @property
    def digests(self) -> dict[str, str]:
        """The same over the problems of each file, by its name, so that it can be told which of them has changed."""
        return self._hashed[1]

    @property
    def columns(self) -> str:
        """32 hex digits over all columns of their rows, which verifiers and environments may read."""
        whole = hashlib.blake2b(digest_size=16)
        for problem in self:
            whole.update(json.dumps(dict(problem.row), default=_as_text).encode())
        return whole.hexdigest()

    @property
    def verifier_files(self) -> dict[str, str]:
        """32 hex digits over each Python file of the user on which a verifier of theirs rests, by the verifier and the file."""
        found: dict[str, str] = {}
        for name in sorted({name for problem in self for name in problem.verifiers if is_custom(name)}):
            (_, own), *beside = source_digests(Path(name.rpartition(":")[0])).items()
            found |= {name: own} | {f"{name} imports {file}": digest for file, digest in beside}
        return found

    @property
    def verdicts_rest_on(self) -> dict[str, dict[str, str]]:
        """`verifier_files` for what a run is pinned by; empty where no verifier is in a file of the user."""
        return {"verifiers": files} if (files := self.verifier_files) else {}

    @cached_property
    def _hashed(self) -> tuple[str, dict[str, str]]:
        whole = hashlib.blake2b(digest_size=16)
        by_file: dict[str, Any] = {}
        for problem in self:
            content = [problem.id, list(problem.prompt), problem.ground_truth, list(problem.verifiers)]
            text = json.dumps(content, default=str).encode()
            whole.update(text)
            # An id is FILE:LINE.
            by_file.setdefault(problem.id.rpartition(":")[0], hashlib.blake2b(digest_size=16)).update(text)
        return whole.hexdigest(), {file: digest.hexdigest() for file, digest in by_file.items()}


def _as_text(value: object) -> str:
    """A value that JSON has no form for, in words that are the same in every process: not its place in memory."""
    text = str(value)
    return type(value).__name__ if " at 0x" in text else text


def load_problems(
    sources: Sequence[Source],
    tokenizer: "PreTrainedTokenizerBase",
    max_prompt: int,
    verifier: str | None = None,
    seed: int = 1,
    with_reward_model: bool = False,
    bad_golds: BadGolds = "stop",
    mode: Mode = "strict",
    settings: Settings = NO_SETTINGS,
    tools: Tools = (),
) -> Problems:
    """Prompts of at most max_prompt tokens, each with a ground truth that its verifiers can use.

    `verifier` scores every row; None takes each row's own. Verifiers that are unknown or lack the mode are one RecipeError that
    names them all, and so is the verifier reward_model, unless the caller has a reward model (`with_reward_model`). Rows whose
    ground truth does not grade itself right are left out; over 1 % of a source are a DataError, unless `bad_golds` is skip.
    `tools`, those of an environment, stand in every prompt in place of the row's own.
    """
    if verifier is not None:
        _check_verifiers({verifier: Tally()}, with_reward_model, mode, settings)
    parsed = [_parse(source, verifier, seed) for source in check_sources(sources)]
    rows_of: dict[str, Tally] = defaultdict(Tally)
    for row, problem in (entry for _, entries in parsed for entry in entries):
        for name in problem.verifiers:
            rows_of[name] += Tally(1, (row.id,))
    _check_verifiers(rows_of, with_reward_model, mode, settings)
    result: list[Problem] = []
    for report, entries in parsed:
        entries = [(row, replace(problem, tools=tools or problem.tools)) for row, problem in entries]
        usable = _tokenise(_with_usable_truths(entries, report, bad_golds), report, tokenizer, max_prompt)
        if not usable:
            raise DataError(report.nothing_left())
        report.proven = sum(_is_provable(problem) for problem in usable)
        report.tokens = sum(len(problem.prompt) for problem in usable)
        result += usable
    return Problems(result, total(report for report, _ in parsed))


def _parse(source: Source, verifier: str | None, seed: int) -> tuple[RowReport, list[ParsedRow]]:
    report = RowReport(source.name)
    entries: list[ParsedRow] = []
    for row in sample_rows(source, seed, "rlvr"):
        problem = report.read(row, "rlvr", lambda each: parse_problem(each, verifier), _contents)
        if problem is not None:
            entries.append((row, problem))
    return report, entries


def _contents(problem: ProblemText) -> list[str]:
    return [message["content"] for message in problem.messages]


def _check_verifiers(rows_of: Mapping[str, Tally], with_reward_model: bool, mode: Mode, settings: Settings) -> None:
    """RecipeError where no verifier has one of these names, or it lacks the mode.

    reward_model is a verifier only for a caller that has a reward model.
    """
    errors = []
    for name, rows in rows_of.items():
        try:
            if not (with_reward_model and name.lower() == REWARD_MODEL):
                check_name(name, mode, settings)
        except RecipeError as error:
            errors.append(f"{error}; rows: {rows}" if rows.count else str(error))
    if errors:
        raise RecipeError("\n".join(errors))


def _with_usable_truths(entries: Sequence[ParsedRow], report: RowReport, bad_golds: BadGolds) -> list[ParsedRow]:
    """The rows whose ground truths prove themselves; grading the others would fail or pay for anything.

    The first of those left out are logged with the reason. Raises DataError where they are too many and `bad_golds` is stop.
    """
    pairs = [list(zip(problem.verifiers, _truths(problem), strict=True)) for _, problem in entries]
    found = iter(faults([pair for group in pairs for pair in group]))
    usable, bad = [], list[tuple[str, str]]()
    for (row, problem), group in zip(entries, pairs, strict=True):
        reasons = [reason for reason in [next(found) for _ in group] if reason is not None]
        if reasons:
            bad.append((row.id, reasons[0]))
            report.drop(f"{' and '.join(problem.verifiers)} cannot use the ground truth", row.id)
        else:
            usable.append((row, problem))
    for row_id, reason in bad[:_LISTED]:
        log.warning("%s: %s", row_id, reason)
    if bad_golds == "stop" and usable:
        stop_over_limit(report.name, len(entries), bad)
    return usable


def _is_provable(problem: Problem) -> bool:
    """Whether all ground truths of a problem are answers, so that they were graded and not only checked."""
    return all(is_provable(name, truth) for name, truth in zip(problem.verifiers, _truths(problem), strict=True))


def _truths(problem: ProblemText | Problem) -> Sequence[Any]:
    """The ground truths of a row, one for each of its verifiers."""
    return problem.ground_truth if len(problem.verifiers) > 1 else [problem.ground_truth]


def _tokenise(
    entries: Sequence[ParsedRow], report: RowReport, tokenizer: "PreTrainedTokenizerBase", max_prompt: int
) -> list[Problem]:
    """The problems whose prompts the template takes, in at most max_prompt tokens."""
    result = []
    texts = [problem for _, problem in entries]
    prompts = encode_prompts(tokenizer, [problem.messages for problem in texts], [problem.tools for problem in texts])
    for (row, problem), prompt in zip(entries, prompts, strict=True):
        if prompt.problem:
            report.drop(f"the template refuses it: {prompt.problem}", row.id)
            continue
        if reason := loss_of(tokenizer, prompt, problem.messages, problem.tools):
            report.drop(reason, row.id)
        elif len(prompt.tokens) > max_prompt:
            report.drop(f"prompt longer than {max_prompt} tokens", row.id)
        else:
            if prompt.shortened:
                report.note(THOUGHTS, row.id)
            if odd := odd_role(tokenizer, problem.messages):
                report.note(ODD_ROLE, row.id, odd)
            result.append(Problem(row.id, problem.messages, prompt.tokens, problem.ground_truth, problem.verifiers, row.columns))
    return result
