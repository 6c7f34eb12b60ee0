"""`tulu rlvr --status RUN`: where a run stands, from another terminal."""

import time
from pathlib import Path
from typing import Any

import typer

from tulu.errors import RecipeError
from tulu.progress import SHOWN
from tulu.rollout.status import FILE, is_alive, read_status

SILENT = 30.0
"""Seconds without a word after which a process of another machine may be gone."""


def show_status(run: str, runs: Path) -> None:
    """Print what a run last said of itself. Raises RecipeError where there is none of that name or folder."""
    places = [Path(run), runs / run]
    # Of several RLVR stages of a run, the one that wrote last is the one that is meant.
    files = [file for place in places for file in (place / FILE, *place.glob(f"*/{FILE}")) if file.is_file()]
    if not files:
        looked = " or ".join(str(place) for place in places)
        raise RecipeError(f"--status {run}: no RLVR run has written a {FILE} in {looked}")
    file = max(files, key=lambda file: file.stat().st_mtime)
    try:
        lines = told(file, read_status(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{file}: cannot be read ({type(error).__name__}: {error}); the run writes it again") from error
    typer.echo("\n".join(lines))


def told(file: Path, status: dict[str, Any]) -> list[str]:
    """The lines that say where a run stands."""
    silent = time.time() - status["written"]
    owner, alive = f"pid {status['pid']} on {status['host']}", is_alive(status)
    state = str(status.get("state", "starting"))
    over = state.startswith(("ended", "stopped"))
    if not over:
        if alive is False:
            state = f"gone: {owner} ended without a word, {state} was its last; run the same command to resume"
        elif alive is None and silent > SILENT:
            state += f" ({owner} has written nothing for {silent:.0f} s: it may be gone)"
    lines = [f"{file.parent}: step {status.get('step', '?')} of {status.get('steps', '?')}, {state}"]
    lines.append(f"{owner}, since {_clock(status['began'])}; written {silent:.0f} s ago")
    # What was going on is of no interest, and would mislead, once nothing goes on any more.
    if (queue := status.get("queue")) and not over:
        lines.append("prompts: " + ", ".join(f"{count} {name}" for name, count in queue.items()))
    lines += [
        f"engine {engine['name']}: {engine['status']}, {_weights(engine['version'])}, {engine['running']} requests"
        for engine in status.get("engines") or ()
        if not over
    ]
    last = status.get("last") or {}
    if figures := [f"{name} {last[name]:.3g}" for name in SHOWN if last.get(name) is not None]:
        lines.append("last step: " + ", ".join(figures))
    now = time.time()
    lines += [
        f"waiting for {wait['for']} since {_clock(wait['since'])} ({now - wait['since']:.0f} s)" for wait in status["waits"]
    ]
    return lines


def _weights(version: int) -> str:
    return f"weights of step {version}" if version >= 0 else "no weights of the learner"


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
