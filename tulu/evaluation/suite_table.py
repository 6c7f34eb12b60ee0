"""The one table at the end of a suite, or of several tasks."""

import math
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.config.suites import Suite
from tulu.evaluation.suite_scores import TaskScore, average, average_note
from tulu.intervals import Interval


def show_suite(suite: Suite, scores: Mapping[str, TaskScore], where: str, limit: int | None = None) -> None:
    """Print a line for each task, the average, what was not as the suite says, and where the results lie."""
    mean, interval, lacking = average(suite, scores)
    missing, total = suite.missing(lacking), len(suite.counted) + len(suite.left_out)
    done = total - len(missing)
    title = suite.name if not missing else f"{suite.name} ({done} of {total} tasks: not the report's average)"
    table = Table(title=title, title_justify="left")
    for column in ("task", "metric", "score", "95 % interval", "problems"):
        table.add_column(column, justify="right" if column in ("score", "problems") else "left")
    for score in scores.values():
        counted = "" if score.name in suite.counted else " (in no average)"
        arrow = "" if score.better == "higher" else " ↓"
        graded = str(score.scored) if score.scored == score.problems else f"{score.scored} of {score.problems}"
        title = escape(score.title) + _of_group(suite, score, counted)
        table.add_row(title, escape(score.metric) + arrow, *_cells(score), graded)
    label = "average" if not missing else f"average of {done} of {total}"
    table.add_section()
    table.add_row(f"[bold]{label}", "", f"[bold]{_percent(mean)}", _interval(interval) if done else "", "")
    console = Console()
    console.print(table)
    notes = [note] if (note := average_note(suite, lacking, limit)) else []
    notes += [f"{name} is not in this suite: {why}" for name, why in suite.left_out.items()]
    for note in notes:
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    for note in (note for score in scores.values() for note in _notes(score)):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"  {where}", highlight=False, markup=False, soft_wrap=True)


def _of_group(suite: Suite, score: TaskScore, otherwise: str) -> str:
    """The group that a task counts in, where it does not count itself."""
    group = next((name for name, members in suite.groups.items() if score.name in members and name in suite.counted), None)
    return f" (in {group})" if otherwise and group is not None else otherwise


def _cells(score: TaskScore) -> tuple[str, str]:
    return _percent(score.score), "" if math.isnan(score.score) else _interval(score.ci95)


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _interval(interval: Interval) -> str:
    return f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"


def _notes(score: TaskScore) -> list[str]:
    notes = [f"{metric} {_percent(value)}" for metric, value in score.further.items()]
    if score.left_out:
        notes.append(f"{score.left_out} rows not asked: too long for the model, or without a usable ground truth")
    if score.truncated:
        notes.append(f"{score.truncated} answers did not stop, or prompts were cut")
    return [f"{score.name}: {note}" for note in (*notes, *score.notes)]
