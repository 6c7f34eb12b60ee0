"""Best of N: what a reward model picks among sampled answers, what that is worth, and what it could be worth at most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from tulu.evaluation.candidates import Candidate, ScoredProblem
from tulu.intervals import Interval, bootstrap_mean, wilson


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over problems and its 95 % interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True, slots=True)
class BestOf:
    """Figures over the problems whose answers all have a verifier's score, and of which at least one has a reward."""

    n: int
    problems: int
    picked: Figure
    """Accuracy of the reward model's pick, with Wilson's interval."""
    single: Figure
    """Mean accuracy of one answer, with Wilson's interval over the problems, which is wide rather than narrow."""
    oracle: Figure
    """Accuracy of the best answer (pass@N), with Wilson's interval."""
    gain: Figure
    """Pick minus one answer, problem by problem, with a bootstrap interval over the problems."""
    curve: dict[int, dict[str, float]]
    """For 1, 2, 4, … up to N answers: accuracy of the pick and of the best answer, over all ways to draw so many."""
    left_out: int
    """Problems with an answer that has no verifier's score, or without any reward."""
    unrewarded: int
    """Answers that the reward model could not score, which are never picked."""


def rank(rewards: Sequence[float]) -> list[int]:
    """Indices from the highest reward to the lowest; equal ones keep their order, NaN comes last."""
    return sorted(range(len(rewards)), key=lambda index: (math.isnan(rewards[index]), -rewards[index], index))


def pick(rewards: Sequence[float]) -> int | None:
    """Index of the highest reward, the first of equal ones; None where all are NaN."""
    best = rank(rewards)[0]
    return None if math.isnan(rewards[best]) else best


def expected_best_of(rewards: Sequence[float], scores: Sequence[float], n: int) -> float:
    """The mean score of the answer with the highest reward among n of the N, over all ways to draw n.

    The answer with rank i (from 0) is picked in C(N-i-1, n-1) of the C(N, n) draws, so that one set of N samples gives an
    unbiased figure for every n, where taking the first n would waste the others.
    """
    count = len(rewards)
    if len(scores) != count or not 1 <= n <= count:
        raise ValueError(f"{count} rewards, {len(scores)} scores, best of {n}")
    ways = math.comb(count, n)
    return sum(scores[index] * math.comb(count - place - 1, n - 1) for place, index in enumerate(rank(rewards))) / ways


def oracle_best_of(scores: Sequence[float], n: int) -> float:
    """As `expected_best_of` with a perfect reward: pass@n where scores are 0 and 1 (Chen et al., arXiv 2107.03374)."""
    return expected_best_of(scores, scores, n)


def rewards_of(answers: Sequence[Candidate]) -> list[float]:
    """The rewards of a problem's answers; NaN where there is none."""
    return [math.nan if answer.reward is None else answer.reward for answer in answers]


def best_of_figures(problems: Sequence[ScoredProblem], n: int, seed: int) -> BestOf:
    """The figures of N answers to each problem."""
    usable = [
        problem.answers
        for problem in problems
        if all(answer.score is not None for answer in problem.answers) and pick(rewards_of(problem.answers)) is not None
    ]
    pairs = [(rewards_of(answers), [answer.score or 0.0 for answer in answers]) for answers in usable]
    picked, single = ([expected_best_of(rewards, scores, size) for rewards, scores in pairs] for size in (n, 1))
    oracle = [oracle_best_of(scores, n) for _, scores in pairs]
    gains = [best - one for best, one in zip(picked, single, strict=True)]
    sizes = [size for size in (2**power for power in range(n.bit_length())) if size < n] + [n]
    curve = {
        size: {
            "picked": _mean([expected_best_of(rewards, scores, size) for rewards, scores in pairs]),
            "oracle": _mean([oracle_best_of(scores, size) for _, scores in pairs]),
        }
        for size in sizes
    }
    return BestOf(
        n=n,
        problems=len(usable),
        picked=_accuracy(picked),
        single=_accuracy(single),
        oracle=_accuracy(oracle),
        gain=Figure(_mean(gains), bootstrap_mean(gains, seed)),
        curve=curve,
        left_out=len(problems) - len(usable),
        unrewarded=sum(answer.reward is None for problem in problems for answer in problem.answers),
    )


def _accuracy(scores: Sequence[float]) -> Figure:
    return Figure(_mean(scores), wilson(_mean(scores), len(scores)))


def show_best_of(figures: BestOf) -> None:
    """Print the curve as a table, with intervals at its ends, and the gain."""
    table = Table(box=None, pad_edge=False)
    table.add_column("answers", justify="right")
    table.add_column("reward model picks")
    table.add_column("best there is (pass@n)")
    ends = {1: (figures.single, figures.single), figures.n: (figures.picked, figures.oracle)}
    for size, values in figures.curve.items():
        inner = [f"{100 * value:.1f}" for value in values.values()]
        table.add_row(str(size), *([_format(figure) for figure in ends[size]] if size in ends else inner))
    console = Console()
    console.print(table, highlight=False)
    low, high = (f"{100 * bound:+.1f}" for bound in figures.gain.ci95)
    notes = [f"gain over one answer {100 * figures.gain.value:+.1f} [{low}, {high}]"]
    if figures.left_out:
        notes.append(f"{figures.left_out} problems left out: an answer that could not be graded, or none with a reward")
    if figures.unrewarded:
        notes.append(f"{figures.unrewarded} answers without a reward, never picked; samples.jsonl says why")
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False)


def _format(figure: Figure) -> str:
    low, high = figure.ci95
    return f"{100 * figure.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
