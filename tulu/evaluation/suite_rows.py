"""From a suite's task to a file of rows that the rest of the package reads: messages, a ground truth and a verifier each.

The file lies beside the answers, so that everybody can see what was asked, word for word.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, Undefined

from tulu.config.parts import Source
from tulu.config.suite_templates import filled
from tulu.config.suites import Shots, SuiteTask
from tulu.data.mixing import sample_rows
from tulu.data.sources import Row
from tulu.errors import DataError
from tulu.files import json_lines, write_atomic
from tulu.types import Message

ROWS = "rows.jsonl"
GROUP = "group"
"""Column that says with which problems one is averaged first."""


DATA_SET = "data_set"
"""What `mean_over` calls the data set that a row is of."""


def write_rows(task: SuiteTask, sources: Sequence[Source], folder: Path, seed: int, limit: int | None = None) -> Path:
    """Write the rows of a task with a verifier or a judge into its folder; returns the file. `limit` takes the first ones."""
    shots = [] if task.shots is None else _shots(task, task.shots, seed)
    used = {row.id for row, _ in shots}
    prefix = [message for _, pair in shots for message in pair]
    wanted = ((source, row) for source in sources for row in sample_rows(source, seed, "rlvr") if row.id not in used)
    asked = ((source, row) for source, row in wanted if task.where is None or _value(task.where, row))
    rows = [_as_row(task, row, source.name, prefix) for source, row in islice(asked, limit)]
    if not rows:
        names = ", ".join(source.name for source in sources)
        raise DataError(f"{task.title}: no row of {names} is part of the task; correct `where`, or give other data")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ROWS
    # A row may hold dates and the like, for which JSON has no type.
    write_atomic(file, json_lines(rows, default=str))
    return file


def _as_row(task: SuiteTask, row: Row, data_set: str, prefix: Sequence[Message]) -> dict[str, Any]:
    columns = {DATA_SET: data_set, **_columns(row)}
    result: dict[str, Any] = {}
    if task.ask is None:
        result.update(_columns(row))
    else:
        result["messages"] = [*prefix, {"role": "user", "content": _text(task.ask, row)}]
    gold = task.gold or task.reference
    if gold is not None:
        result["ground_truth"] = _value(gold, row)
    if task.verifier is not None:
        result["dataset"] = task.verifier
    if task.mean_over is not None:
        if task.mean_over not in columns:
            raise DataError(f"{row.id}: no column {task.mean_over} (mean_over) among {', '.join(columns)}")
        result[GROUP] = str(columns[task.mean_over])
    return result


def _shots(task: SuiteTask, shots: Shots, seed: int) -> list[tuple[Row, list[Message]]]:
    """The solved examples: the row of each, and its two turns. Raises DataError where there are too few."""
    rows = list(islice(_shot_rows(shots, seed), shots.count))
    if len(rows) < shots.count:
        raise DataError(f"{task.title}: {shots.count} shots, and there are only {len(rows)} examples")
    assert task.ask is not None
    return [
        (row, [{"role": "user", "content": _text(task.ask, row)}, {"role": "assistant", "content": _text(shots.answer, row)}])
        for row in rows
    ]


def _shot_rows(shots: Shots, seed: int) -> Iterator[Row]:
    if shots.data is not None:
        return sample_rows(shots.data, seed, "rlvr")
    if shots.harness is None:
        return (Row(f"shot {place}", row) for place, row in enumerate(shots.rows))
    from tulu.evaluation.harness_tasks import examples_of

    return (Row(f"{shots.harness}: example {place}", row) for place, row in enumerate(examples_of(shots.harness)))


def _columns(row: Row) -> Mapping[str, Any]:
    if row.problem:
        raise DataError(f"{row.id}: {row.problem}")
    return dict(row.columns)


def _text(template: str, row: Row) -> str:
    return str(_fill(template, row, expression=False))


def _value(expression: str, row: Row) -> Any:
    return _fill(expression, row, expression=True)


def _fill(text: str, row: Row, expression: bool) -> Any:
    columns = _columns(row)
    try:
        value = filled(text, expression)({**columns, "row": columns})
        _use(value)
        return value
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        # What a filter raises depends on what it was given, such as a number in place of a text.
        shown = text if len(text) <= 60 else f"{text[:60]}…"
        raise DataError(
            f"{row.id}: {shown!r} cannot be filled in: {error}; "
            f"its columns are {', '.join(columns)}: correct the suite or the data"
        ) from error


def _use(value: Any) -> None:
    """Raise where a value, or a part of it, is a column that is not there: Jinja says so only when it is used."""
    if isinstance(value, Undefined):
        str(value)
    elif isinstance(value, Mapping):
        _use(list(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            _use(part)
