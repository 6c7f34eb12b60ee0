"""What a suite's answers are worth: each problem's value, a task's score with its interval, groups, and the average."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tulu.config.suites import PASS_AT, Suite
from tulu.evaluation.best_of import oracle_best_of
from tulu.evaluation.candidates import ScoredProblem
from tulu.intervals import RESAMPLES, Interval, bootstrap_mean, percentiles, resampled_means, wilson


@dataclass(frozen=True)
class TaskScore:
    """One task's, or one group's, line of the table."""

    name: str
    title: str
    metric: str
    better: str
    score: float
    """Between 0 and 1; NaN where no problem could be scored."""
    ci95: Interval
    problems: int
    scored: int
    """Problems that have a value; the others could not be graded."""
    left_out: int = 0
    """Problems that were not asked: the prompt does not fit the model, or the ground truth cannot be used."""
    truncated: int = 0
    """Answers that did not stop, or prompts whose beginning was cut off."""
    further: Mapping[str, float] = field(default_factory=dict)
    """Other metrics of the same answers."""
    notes: tuple[str, ...] = ()
    """What was not as the suite says: fewer tokens, only the first rows."""
    differs: str = ""
    """What is not as in the original harness."""


Value = Callable[[ScoredProblem], float | None]


def value_of(metric: str) -> Value:
    """The function that gives a problem its value by a metric; None where its answers could not be graded."""
    if match := PASS_AT.fullmatch(metric):
        return lambda problem: _pass_at(problem, int(match[1]))
    return _VALUES[metric]


def _graded(problem: ScoredProblem) -> list[float]:
    return [answer.score for answer in problem.answers if answer.score is not None]


def _mean_of(of: Callable[[float], float]) -> Value:
    def value(problem: ScoredProblem) -> float | None:
        scores = _graded(problem)
        return sum(map(of, scores)) / len(scores) if scores else None

    return value


def _pass_at(problem: ScoredProblem, k: int) -> float | None:
    """The chance that one of k answers is right, over all ways to draw k of the n (Chen et al., arXiv 2107.03374, equation 1)."""
    scores = [float(score >= 1) for score in _graded(problem)]
    # An answer that nobody could grade may have been right: with fewer answers than there were, the estimate is another.
    return oracle_best_of(scores, k) if len(scores) == len(problem.answers) else None


def _contains(problem: ScoredProblem) -> float | None:
    accepted = accepted_answers(problem.ground_truth)
    found = [any(contains(answer.text, text) for text in accepted) for answer in problem.answers]
    return sum(found) / len(found)


def accepted_answers(truth: Any) -> list[str]:
    """The accepted answers of a ground truth: a text, a list, or a list that is written as JSON."""
    if isinstance(truth, str) and truth.lstrip().startswith("["):
        with suppress(ValueError):
            # What only begins like a list is a text like others.
            truth = json.loads(truth)
    return [str(text) for text in (truth if isinstance(truth, list | tuple) else [truth])]


def contains(answer: str, accepted: str) -> bool:
    """PopQA's rule: the accepted text stands in the answer as it is, in lower case, or with a capital."""
    return any(form in answer for form in (accepted, accepted.lower(), accepted.capitalize()))


_VALUES: Mapping[str, Value] = {
    "accuracy": _mean_of(lambda score: score),
    "solved": _mean_of(lambda score: float(score >= 1)),
    "agreed": _mean_of(lambda score: float(score >= 0.5)),
    "contains": _contains,
}


def score_of(values: Sequence[tuple[str, float]], seed: int = 1) -> tuple[float, Interval]:
    """The mean of (group, value) and its 95 % interval; with several groups, the mean of their means.

    Wilson's interval for shares of one group, else the percentile bootstrap over the problems, within each group.
    """
    groups: dict[str, list[float]] = {}
    for group, value in values:
        groups.setdefault(group, []).append(value)
    if not groups:
        return math.nan, (0.0, 1.0)
    means = [sum(members) / len(members) for members in groups.values()]
    score = sum(means) / len(means)
    if len(groups) > 1:
        rng = np.random.default_rng(seed)
        draws = [resampled_means(np.asarray(members, dtype=np.float64), RESAMPLES, rng) for members in groups.values()]
        return score, percentiles(np.mean(draws, axis=0))
    only = next(iter(groups.values()))
    if set(only) <= {0.0, 1.0}:
        return score, wilson(score, len(only))
    return score, bootstrap_mean(only, seed)


def mean_score(members: Sequence[TaskScore]) -> tuple[float, Interval]:
    """The mean of several scores, and its interval: their half-widths add up as those of independent measurements do.

    A score that is better when lower counts as 1 minus itself.
    """
    scores = [_upwards(member) for member in members]
    mean, n = sum(score for score, _ in scores) / len(scores), len(scores)
    below = math.sqrt(sum((score - low) ** 2 for score, (low, _) in scores)) / n
    above = math.sqrt(sum((high - score) ** 2 for score, (_, high) in scores)) / n
    return mean, (max(0.0, mean - below), min(1.0, mean + above))


def _upwards(member: TaskScore) -> tuple[float, Interval]:
    if member.better == "higher":
        return member.score, member.ci95
    low, high = member.ci95
    return 1 - member.score, (1 - high, 1 - low)


def with_groups(suite: Suite, scores: Mapping[str, TaskScore]) -> dict[str, TaskScore]:
    """The tasks, and behind them each group of which every task was done."""
    result = dict(scores)
    for name, members in suite.groups.items():
        if all(member in scores for member in members):
            parts = [scores[member] for member in members]
            score, interval = mean_score(parts)
            counts = {key: sum(getattr(part, key) for part in parts) for key in ("problems", "scored", "left_out", "truncated")}
            result[name] = TaskScore(name, name, f"mean of {len(parts)} tasks", "higher", score, interval, **counts)
    return result


def average(suite: Suite, scores: Mapping[str, TaskScore]) -> tuple[float, Interval, list[str]]:
    """The suite's score as its report computes it, with its interval, and the tasks that it lacks."""
    done = [scores[name] for name in suite.counted if name in scores and not math.isnan(scores[name].score)]
    lacking = [name for name in suite.counted if name not in {score.name for score in done}]
    return (*mean_score(done), lacking) if done else (math.nan, (0.0, 1.0), lacking)


def average_note(suite: Suite, lacking: Sequence[str], limit: int | None = None) -> str:
    """Why the average is not the report's; empty where it is over all that the report has."""
    missing, total = suite.missing(lacking), len(suite.counted) + len(suite.left_out)
    over = [f"over {total - len(missing)} of {total} tasks, without {', '.join(missing)}"] if missing else []
    over += [] if limit is None else [f"over the first {limit} rows of each task"]
    return f"the average is {' and '.join(over)}: it is not the report's" if over else ""
