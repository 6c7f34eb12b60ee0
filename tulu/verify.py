"""`tulu verify`: scores the rows of a file with one verifier, in order."""

import contextlib
import gzip
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tulu.errors import DataError, RecipeError, TuluError
from tulu.grading import Grader
from tulu.names import judge_problem
from tulu.recipe import Judge
from tulu.types import Message, Problem, Verdict
from tulu.verifiers.contract import MODES, Mode, is_finite, shorten
from tulu.verifiers.registry import check_name, find
from tulu.verifiers.reward_model import NAME
from tulu.verifiers.sandbox import UNSAFE

if TYPE_CHECKING:
    from tulu.reward_models.answers import RewardGrader

_WINDOW = 512
"""Rows graded between two turns of the progress bar."""
_NAMED = 10
"""Bad rows that a message names; the rest are counted."""


def verify_file(
    name: str,
    source: str,
    target: str,
    mode: str = "strict",
    workers: int = 2,
    deadline: float = 6.0,
    unsafe_local: bool = False,
    reward_model: str | None = None,
) -> None:
    """Writes each row of `source` with its score, status and detail to `target`; `-` is standard input or output.

    Rows are JSON objects, one a line: completion, ground_truth, and prompt or messages where the verifier needs the
    question. RecipeError for an unknown verifier or mode, DataError for bad rows, each named; then nothing is written.
    `unsafe_local` lets programs run without a sandbox. `reward_model` is what the verifier of that name asks.
    """
    console = Console(stderr=True)
    checked = _mode(mode)
    if unsafe_local:
        # The grading processes inherit it.
        os.environ[UNSAFE] = "1"
    if reward_model is None:
        check_name(name)
    elif name.lower() != NAME:
        raise RecipeError(f"--reward-model belongs to the verifier {NAME}, not to {name}; leave it out")
    elif problem := judge_problem(reward_model):
        raise RecipeError(f"--reward-model {reward_model}: {problem}")
    find(name).grade(checked)
    rows = _read(name, source)
    learned = _load(reward_model) if reward_model else None
    began, verdicts = time.perf_counter(), list[Verdict]()
    with Grader(workers, deadline, mode=checked) as grader, _writing(target) as out, _bar(console) as progress:
        bar = progress.add_task(f"verify {name}", total=len(rows))
        for start in range(0, len(rows), _WINDOW):
            window = rows[start : start + _WINDOW]
            graded = (learned or grader).grade([(row["completion"], problem) for row, problem in window])
            for (row, _), verdict in zip(window, graded, strict=True):
                said = {"score": verdict.score, "status": verdict.status, "detail": verdict.detail}
                out.write(json.dumps({**row, **said}) + "\n")
            verdicts += graded
            progress.update(bar, completed=start + len(window))
        out.flush()
        console.print(_table(name, verdicts, time.perf_counter() - began, sorted(grader.seconds)))


def _load(reward_model: str) -> "RewardGrader":
    """What is asked in place of a verifier."""
    # Seconds of imports and a model, which no other verifier needs.
    from tulu.reward_models.answers import RewardGrader

    return RewardGrader.load(Judge(path=reward_model))


def _mode(mode: str) -> Mode:
    for known in MODES:
        if mode == known:
            return known
    raise RecipeError(f"mode {mode!r} is unknown; known are {', '.join(MODES)}")


def _read(name: str, source: str) -> list[tuple[dict[str, Any], Problem]]:
    """All rows and their problems; DataError that names every bad one, up to a few."""
    check, rows, bad = find(name).check, list[tuple[dict[str, Any], Problem]](), list[str]()
    label = "standard input" if source == "-" else source
    for number, line in enumerate(_lines(source), 1):
        if not line.strip():
            continue
        where = f"{label}:{number}"
        try:
            row = json.loads(line)
            problem = _problem(name, row, where)
            check(problem.ground_truth)
            rows.append((row, problem))
        except DataError as fault:
            bad.append(f"{where}: {fault}")
        except ValueError as fault:
            bad.append(f"{where}: not JSON ({fault})")
        except RecursionError:
            bad.append(f"{where}: JSON nested too deep")
    if bad:
        more = f"\n… and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataError(f"{len(bad)} of {len(rows) + len(bad)} rows cannot be graded:\n" + "\n".join(bad[:_NAMED]) + more)
    if not rows:
        raise DataError(f"{label}: no rows")
    return rows


def _lines(source: str) -> Iterator[str]:
    if source == "-":
        yield from sys.stdin
        return
    path = Path(source)
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as fault:
        raise DataError(f"{source}: not UTF-8 text ({fault})") from fault
    except OSError as fault:
        raise DataError(f"{source}: cannot be read ({fault.strerror or fault})") from fault


def _problem(name: str, row: Any, where: str) -> Problem:
    if not isinstance(row, dict):
        raise DataError(f"a row must be a JSON object, got {type(row).__name__}")
    needed = ("completion",) if name.lower() == NAME else ("completion", "ground_truth")
    missing = [key for key in needed if key not in row]
    if missing:
        raise DataError(f"lacks {' and '.join(missing)}; a row has {' and '.join(needed)}")
    if not isinstance(row["completion"], str):
        raise DataError(f"completion must be a string, got {type(row['completion']).__name__}")
    weights = row.get("weights")
    if weights is not None and not (isinstance(weights, list) and weights and all(map(is_finite, weights))):
        raise DataError(f"weights must be a list of numbers, got {weights!r}")
    return Problem(where, _messages(row), (), row.get("ground_truth"), (name,), row)


def _messages(row: dict[str, Any]) -> list[Message]:
    """The conversation of a row: its messages, or its prompt, which may be such a list too; DataError for anything else."""
    said = row.get("messages") or row.get("prompt") or ""
    if isinstance(said, str) and not row.get("messages"):
        return [{"role": "user", "content": said}]
    messages = list[Message]()
    for turn in said if isinstance(said, list) else [said]:
        if not isinstance(turn, dict) or not all(isinstance(turn.get(key), str) for key in ("role", "content")):
            raise DataError(f"prompt must be a string, or it and messages a list of {{role, content}}, got {shorten(repr(said))}")
        messages.append({"role": turn["role"], "content": turn["content"]})
    return messages


@contextlib.contextmanager
def _writing(target: str) -> Iterator[IO[str]]:
    """A file that appears under its name only when all of it is written; standard output for `-`.

    What is there and is no plain file (a device, a pipe, a link) is written to, never replaced.
    """
    if target == "-":
        try:
            yield sys.stdout
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python's own flush at exit must not complain again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    path = Path(target)
    replaced = not path.is_symlink() and (path.is_file() or not path.exists())
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial") if replaced else path
    try:
        with partial.open("w", encoding="utf-8") as file:
            yield file
        if replaced:
            partial.replace(path)
    except OSError as fault:
        raise TuluError(f"{target}: cannot be written ({fault.strerror or fault})") from fault
    finally:
        if replaced:
            partial.unlink(missing_ok=True)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


def _table(name: str, verdicts: list[Verdict], seconds: float, latencies: list[float]) -> Table:
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    counts = Counter(verdict.status for verdict in verdicts)
    table = Table(title=f"verify {name}", show_header=False)
    table.add_row("rows", str(len(verdicts)))
    table.add_row("mean score", f"{sum(scores) / len(scores):.4f}" if scores else "none was judged")
    for status in ("ok", "timeout", "error"):
        table.add_row(status, str(counts[status]))
    table.add_row("verdicts/s", f"{len(verdicts) / seconds:.0f}")
    if latencies:
        for share in (0.5, 0.99):
            table.add_row(
                f"p{share * 100:.0f}", f"{1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]:.2f} ms"
            )
    return table
