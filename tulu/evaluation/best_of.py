"""Best of N: what a reward model picks among sampled answers, what that is worth, and what it could be worth at most."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tulu.evaluation.candidates import Candidate, Candidates
from tulu.intervals import Interval, bootstrap_mean, wilson
from tulu.reward_models.best_of import expected_best_of, oracle_best_of, ranking


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over problems and its 95 % interval."""

    value: float
    ci95: Interval


@dataclass(frozen=True, slots=True)
class BestOf:
    """Figures over the problems whose answers could all be judged, and of which at least one has a reward."""

    n: int
    problems: int
    picked: Figure
    """Accuracy of the reward model's pick; Wilson's interval."""
    single: Figure
    """Mean accuracy of one answer; Wilson's interval over the problems, wide rather than narrow."""
    oracle: Figure
    """Accuracy of the best answer (pass@N); Wilson's interval."""
    gain: Figure
    """Pick minus one answer, problem by problem; bootstrap over problems."""
    curve: dict[int, dict[str, float]]
    """For 1, 2, 4, … up to N: accuracy of the pick and of the best of so many answers, over all ways to draw them."""
    left_out: int
    """Problems with an answer that could not be judged, or without any reward."""
    unrewarded: int
    """Answers that the reward model could not score, and never picks."""


def pick(answers: Sequence[Candidate]) -> int | None:
    """Place of the answer with the highest reward, the first of equal ones; None where none has a reward."""
    rewards = _rewards(answers)
    best = ranking(rewards)[0]
    return None if math.isnan(rewards[best]) else best


def best_of_figures(found: Sequence[Candidates], n: int, seed: int) -> BestOf:
    """The figures of N answers to each problem."""
    usable = [
        each.answers
        for each in found
        if all(answer.score is not None for answer in each.answers) and pick(each.answers) is not None
    ]
    pairs = [(_rewards(answers), [answer.score or 0.0 for answer in answers]) for answers in usable]
    picked, single = ([expected_best_of(r, s, size) for r, s in pairs] for size in (n, 1))
    oracle = [oracle_best_of(s, n) for _, s in pairs]
    gains = [best - one for best, one in zip(picked, single, strict=True)]
    sizes = [size for size in (2**power for power in range(n.bit_length())) if size < n] + [n]
    curve = {
        size: {
            "picked": _mean([expected_best_of(r, s, size) for r, s in pairs]),
            "oracle": _mean([oracle_best_of(s, size) for _, s in pairs]),
        }
        for size in sizes
    }
    return BestOf(
        n=n,
        problems=len(usable),
        picked=Figure(_mean(picked), wilson(_mean(picked), len(usable))),
        single=Figure(_mean(single), wilson(_mean(single), len(usable))),
        oracle=Figure(_mean(oracle), wilson(_mean(oracle), len(usable))),
        gain=Figure(_mean(gains), bootstrap_mean(gains, seed)),
        curve=curve,
        left_out=len(found) - len(usable),
        unrewarded=sum(answer.reward is None for each in found for answer in each.answers),
    )


def show_best_of(found: BestOf) -> None:
    """The curve as a table, intervals at its ends, and what was gained."""
    table = Table(box=None, pad_edge=False)
    table.add_column("answers", justify="right")
    table.add_column("reward model picks")
    table.add_column("best there is (pass@n)")
    ends = {1: (found.single, found.single), found.n: (found.picked, found.oracle)}
    for size, values in found.curve.items():
        shown = (
            [_figure(figure) for figure in ends[size]] if size in ends else [f"{100 * value:.1f}" for value in values.values()]
        )
        table.add_row(str(size), *shown)
    console = Console()
    console.print(table, highlight=False)
    low, high = (f"{100 * bound:+.1f}" for bound in found.gain.ci95)
    notes = [f"gain over one answer {100 * found.gain.value:+.1f} [{low}, {high}]"]
    if found.left_out:
        notes.append(f"{found.left_out} problems left out: an answer that could not be judged, or none with a reward")
    if found.unrewarded:
        notes.append(f"{found.unrewarded} answers without a reward, never picked; samples.jsonl says why")
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False)


def finite(value: Any) -> Any:
    """The same with null in place of NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _figure(figure: Figure) -> str:
    low, high = figure.ci95
    return f"{100 * figure.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _rewards(answers: Sequence[Candidate]) -> list[float]:
    return [math.nan if answer.reward is None else answer.reward for answer in answers]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
