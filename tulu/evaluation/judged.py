"""Win rates: a judge compares each answer with another model's, as AlpacaEval does."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tulu.errors import DataError
from tulu.evaluation.candidates import ScoredProblem
from tulu.files import PinnedLog
from tulu.intervals import Interval, percentiles
from tulu.progress import Progress
from tulu.reward_models.items import Item
from tulu.reward_models.judging import JudgeScorer

CHUNK = 32
"""Comparisons between two writes, which is what a killed command may lose."""
_RESAMPLES = 200
_STEPS = 25
"""Most steps of Newton's method; it needs five."""
_PRIOR = 1e-3
"""Weight of a Gaussian prior on both numbers of the fit, without which answers that are all preferred have none."""


def compare(
    problems: Sequence[ScoredProblem], judge: JudgeScorer, folder: Path, settings: Mapping[str, Any], fresh: bool
) -> dict[str, float]:
    """The share of the judge's verdicts that each problem's first answer won; those that the judge could not give are left out.

    Verdicts are kept in judged.jsonl, so that a command that was killed goes on where it stopped.
    """
    log = PinnedLog(folder / "judged.jsonl", folder / "judged.settings.json", {**settings, **judge.settings})
    log.open(fresh or bool(log.changes()))
    rows = {row["id"]: row for row in log.read(lambda row, _where: row)}
    pending = [problem for problem in problems if problem.id not in rows]
    with Progress("judge", len(problems), len(problems) - len(pending)) as progress:
        for first in range(0, len(pending), CHUNK):
            chunk = pending[first : first + CHUNK]
            scored = judge.score([_item(problem) for problem in chunk])
            new = [{"id": one.id, "credit": one.credit, "replies": one.details.get("replies")} for one in scored]
            log.append(new)
            rows.update((row["id"], row) for row in new)
            progress.update(len(problems) - len(pending) + first + len(chunk), {})
    return {problem.id: rows[problem.id]["credit"] for problem in problems if rows[problem.id]["credit"] is not None}


def _item(problem: ScoredProblem) -> Item:
    if not isinstance(problem.ground_truth, str):
        raise DataError(f"{problem.id}: the answer to compare with is no text; correct `reference` in the suite")
    answers = [({"role": "assistant", "content": text},) for text in (problem.answers[0].text, problem.ground_truth)]
    return Item(problem.id, "win_rate", tuple(problem.messages), (answers[0],), (answers[1],))  # type: ignore[arg-type]


def length_controlled(wins: Sequence[float], lengths: Sequence[tuple[int, int]], seed: int = 1) -> tuple[float, Interval]:
    """The win rate if both answers were equally long, with a bootstrap interval over the problems.

    A logistic regression of the verdicts on the difference of lengths, tanh((own - other) / its standard deviation), is read
    where the difference is 0 (Dubois et al., arXiv 2404.04475, equation 1 without the difficulty of each instruction).
    """
    won = np.asarray(wins, dtype=np.float64)
    longer = np.asarray([own - other for own, other in lengths], dtype=np.float64)
    if not len(won):
        return math.nan, (0.0, 1.0)
    spread = float(longer.std())
    feature = np.tanh(longer / spread) if spread else np.zeros_like(longer)
    rng = np.random.default_rng(seed)
    draws = [_at_equal_length(won[places], feature[places]) for places in rng.integers(len(won), size=(_RESAMPLES, len(won)))]
    return _at_equal_length(won, feature), percentiles(np.asarray(draws))


def _at_equal_length(won: npt.NDArray[np.float64], feature: npt.NDArray[np.float64]) -> float:
    """The fitted chance to win at feature 0, by Newton's method."""
    design = np.stack([np.ones_like(feature), feature], axis=1)
    weights = np.zeros(2)
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (won - chances) - _PRIOR * weights
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design + _PRIOR * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + np.clip(step, -5, 5)
        if float(np.abs(step).max()) < 1e-9:
            break
    return float(1 / (1 + math.exp(-weights[0])))
