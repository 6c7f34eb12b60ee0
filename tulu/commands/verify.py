"""What `tulu verify` does: it scores the completions of a file with one verifier, and keeps the order of the rows."""

import json
import os
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table

from tulu.commands.files import check_target, read_rows, writing
from tulu.config.locate import reward_model_problem
from tulu.config.schema import RewardModelSettings
from tulu.data.faults import Misfit, Unusable
from tulu.data.messages import read_messages, read_prompt
from tulu.errors import DataError, RecipeError, TuluError
from tulu.grading.grader import Grader
from tulu.progress import Progress
from tulu.types import Message, Problem, Verdict
from tulu.verifiers.code.sandbox import UNSAFE
from tulu.verifiers.contract import MODES, Mode, is_finite, shorten
from tulu.verifiers.registry import check_name, find
from tulu.verifiers.reward_model import NAME

_SMALLEST, _LARGEST = 4, 512
"""Fewest and most rows of a window, which is graded between two updates of the progress bar; slow rows get small windows."""
_SMALLEST_OF_REWARD_MODEL = 64
"""Fewest rows that a reward model scores at once; rows with the same prompt share its computation."""
_AHEAD = 8
"""Small windows that are graded at once, so that no process waits for the last row of one; of large ones only one."""
_QUICK, _SLOW = 0.05, 0.5
"""Seconds for a window below which the next ones grow, and above which they shrink."""
_UPDATE_EVERY = 0.1
"""Seconds between two updates of the progress bar while a window takes long."""
_FAULTS = 3
"""Kinds of faults that are shown after the table."""
_QUOTED = re.compile(r"'.*'|\".*\"", re.DOTALL)
"""Quoted text in a fault, which differs from row to row: `'x = 1'` in `program 'x = 1' printed nothing`."""


def verify_file(
    name: str,
    source: str,
    target: str,
    mode: Mode = "strict",
    workers: int = 2,
    unsafe_local: bool = False,
    reward_model: str | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Write each row of `source` with its score, status and detail to `target`; `-` is standard input or output.

    Rows are JSON objects, one in each line: completion, ground_truth, and prompt or messages where the verifier needs the
    question. `unsafe_local` lets programs run without a sandbox. `reward_model` is a folder or a hub name, for the
    verifier of that name; `trust_remote_code` runs the code that it brings along. Raises RecipeError for an unknown verifier or
    mode and for a target that cannot be written, and DataError that names the bad rows; then nothing is written. Raises TuluError
    where no row at all has a score; the target is written all the same.
    """
    if mode not in MODES:
        raise RecipeError(f"mode {mode!r} is unknown; known are {', '.join(MODES)}")
    if unsafe_local:
        # The grading processes inherit the variable.
        os.environ[UNSAFE] = "1"
    _check_verifier(name, reward_model, trust_remote_code)
    find(name).grade(mode)
    check_target(source, target)
    problems = read_rows(source, partial(_read_problem, name), "graded")
    scorer = None
    if reward_model is not None:
        # This import takes seconds, and no other verifier needs it.
        from tulu.reward_models.grader import RewardGrader

        scorer = RewardGrader.load(RewardModelSettings(path=reward_model), trust_remote_code=trust_remote_code)
    began, seconds, verdicts = time.perf_counter(), 0.0, list[Verdict]()
    # The grader is closed before the threads that wait for its verdicts are joined.
    with (
        ThreadPoolExecutor(1 if scorer else _AHEAD, "verify") as pool,
        Grader(workers, mode=mode) as grader,
        writing(target) as out,
        Progress(f"verify {name}", len(problems), brief=True) as progress,
    ):
        items = [(problem.row["completion"], problem) for problem in problems]
        unwritten = iter(problems)
        grade, smallest = (scorer.grade, _SMALLEST_OF_REWARD_MODEL) if scorer else (grader.grade, _SMALLEST)
        for window in _in_order(grade, items, smallest, pool, progress.update):
            for verdict, graded in zip(window, unwritten, strict=False):
                said = {"score": verdict.score, "status": verdict.status, "detail": verdict.detail}
                out.write(json.dumps({**graded.row, **said}) + "\n")
            verdicts += window
            seconds = time.perf_counter() - began
        out.flush()
    if len(verdicts) == len(problems):
        console = Console(stderr=True)
        console.print(_table(name, verdicts, seconds, sorted(grader.seconds)))
        _report_faults(console, problems, verdicts)


def _check_verifier(name: str, reward_model: str | None, trust_remote_code: bool) -> None:
    """Raise RecipeError for an unknown verifier, and for a reward model that is none or belongs to another verifier."""
    if reward_model is None:
        if trust_remote_code:
            raise RecipeError("--trust-remote-code belongs to --reward-model; leave it out")
        check_name(name)
    elif name.lower() != NAME:
        raise RecipeError(f"--reward-model belongs to the verifier {NAME}, not to {name}; leave it out")
    elif problem := reward_model_problem(reward_model):
        raise RecipeError(f"--reward-model {reward_model}: {problem}")


def _in_order(
    grade: Callable[[Sequence[tuple[str, Problem]]], list[Verdict]],
    items: Sequence[tuple[str, Problem]],
    smallest: int,
    pool: ThreadPoolExecutor,
    update: Callable[[int], None],
) -> Iterator[list[Verdict]]:
    """The verdicts of one window after the other; several are graded at once. `update` gets the number of rows done."""
    waiting = deque[Future[list[Verdict]]]()
    start = done = 0
    size, last = smallest, time.monotonic()
    while start < len(items) or waiting:
        while start < len(items) and len(waiting) < _AHEAD and (not waiting or start - done < _LARGEST):
            waiting.append(pool.submit(grade, items[start : start + size]))
            start += size
        while not waiting[0].done():
            wait([waiting[0]], timeout=_UPDATE_EVERY)
            update(done)
        verdicts = waiting.popleft().result()
        now = time.monotonic()
        size = min(_LARGEST, 2 * size) if now - last < _QUICK else max(smallest, size // 2) if now - last > _SLOW else size
        last = now
        done += len(verdicts)
        update(done)
        yield verdicts


def _report_faults(console: Console, problems: list[Problem], verdicts: list[Verdict]) -> None:
    """Print the commonest reasons why rows have no score. Raises TuluError where no row has one."""
    faults = defaultdict[tuple[str, str], list[tuple[str, str]]](list)
    for problem, verdict in zip(problems, verdicts, strict=True):
        if verdict.score is None:
            faults[verdict.status, _QUOTED.sub("", verdict.detail)].append((verdict.detail, problem.id))
    for (status, _), rows in sorted(faults.items(), key=lambda fault: -len(fault[1]))[:_FAULTS]:
        detail, place = rows[0]
        line = f"{len(rows)} × {status}: {shorten(detail, 300)} (first at {place})"
        console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
    if len(faults) > _FAULTS:
        console.print(f"… and {len(faults) - _FAULTS} other kinds of faults", highlight=False)
    if sum(map(len, faults.values())) == len(verdicts):
        raise TuluError(f"none of {len(verdicts)} rows could be scored, for the reasons above; mend the rows or the verifier")


def _read_problem(name: str, row: Any, where: str) -> Problem:
    """A row with a ground truth that its verifier can use. Raises DataError."""
    problem = _problem(name, row, where)
    find(name).check(problem.ground_truth)
    return problem


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
    """The conversation of a row: its messages, or its prompt, which may also be such a list. Raises DataError."""
    turns = row.get("messages") or row.get("prompt") or ""
    try:
        return read_messages(turns, "") if row.get("messages") else read_prompt(turns, "")
    except Misfit:
        text = f"prompt must be a string, or it and messages a list of {{role, content}}, got {shorten(repr(turns))}"
        raise DataError(text) from None
    except Unusable as fault:
        raise DataError(f"prompt cannot be used: {fault}") from None


def _table(name: str, verdicts: list[Verdict], seconds: float, latencies: list[float]) -> Table:
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    counts = Counter(verdict.status for verdict in verdicts)
    table = Table(title=f"verify {name}", show_header=False)
    table.add_row("rows", str(len(verdicts)))
    table.add_row("mean score", f"{sum(scores) / len(scores):.4f}" if scores else "no row has one")
    for status in ("ok", "timeout", "error"):
        table.add_row(status, str(counts[status]))
    table.add_row("verdicts/s", f"{len(verdicts) / seconds:.0f}")
    for percent in (50, 99) if latencies else ():
        latency = latencies[min(len(latencies) - 1, percent * len(latencies) // 100)]
        table.add_row(f"p{percent}", f"{1000 * latency:.2f} ms")
    return table
