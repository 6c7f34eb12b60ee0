"""`tulu rlvr --status RUN`: where a run stands, from another terminal."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from tulu.config.lock import Owner, holder
from tulu.errors import RecipeError
from tulu.progress import figures
from tulu.rollout.status import FILE, is_alive, read_status

SILENT = 30.0
"""Seconds without a word after which a process of another machine may be gone."""


def show_status(run: str, runs: Path) -> None:
    """Print what a run last said of itself. Raises RecipeError where there is none of that name or folder."""
    places = [Path(run), runs / run]
    # Of several RLVR stages of a run, the one that wrote last is the one that is meant.
    files = [file for place in places for file in (place, place / FILE, *place.glob(f"*/{FILE}")) if _is_status(file)]
    if not files:
        if starting := [line for place in places for line in _starting(place)]:
            typer.echo("\n".join(starting))
            return
        looked = " or ".join(str(place) for place in places)
        raise RecipeError(f"--status {run}: no RLVR run has written a {FILE} in {looked}")
    file = max(files, key=lambda file: file.stat().st_mtime)
    try:
        lines = told(file, read_status(file), holder(file.parent.absolute()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError(f"{file}: cannot be read ({type(error).__name__}: {error}); the run writes it again") from error
    typer.echo("\n".join(lines))


def _is_status(file: Path) -> bool:
    return file.name == FILE and file.is_file()


def _starting(place: Path) -> Iterator[str]:
    """Stages of RLVR in which a command is at work that has not said anything yet."""
    for file in (*place.parent.glob(f".{place.name}.lock"), *place.glob(".rlvr*.lock")):
        folder = file.with_name(file.name.removeprefix(".").removesuffix(".lock"))
        if (owner := holder(folder)) is not None:
            yield f"{folder}: {_began(owner)}"


def _began(owner: Owner) -> str:
    return f"starting, since {_clock(_seconds(owner.since))}: pid {owner.pid} on {owner.host} has said nothing of this stage yet"


def told(file: Path, status: dict[str, Any], owner: Owner | None = None) -> list[str]:
    """The lines that say where a run stands; `owner` is who holds its folder."""
    silent = max(0.0, time.time() - status["written"])
    writer, alive = f"pid {status['pid']} on {status['host']}", is_alive(status)
    state = str(status.get("state", "starting"))
    over = state.startswith(("ended", "stopped"))
    if owner is not None and alive is not True and _seconds(owner.since) > status["began"]:
        # What was written is of an earlier session, and its folder is somebody else's by now.
        last = f"step {status['step']} of {status.get('steps', '?')}, " if "step" in status else ""
        return [f"{file.parent}: {_began(owner)}", f"before, until {_clock(status['written'])}: {last}{state}"]
    if not over:
        if alive is False:
            state = f"gone: {writer} ended without a word, {state} was its last; run the same command to resume"
        elif alive is None and silent > SILENT:
            state += f" ({writer} has written nothing for {silent:.0f} s: it may be gone)"
    where = f"step {status['step']} of {status.get('steps', '?')}, " if "step" in status else ""
    lines = [f"{file.parent}: {where}{state}"]
    lines.append(f"{writer}, since {_clock(status['began'])}; written {silent:.0f} s ago")
    # What was going on is of no interest, and would mislead, once nothing goes on any more.
    if (queue := status.get("queue")) and not over:
        lines.append("prompts: " + ", ".join(f"{count} {name}" for name, count in queue.items()))
    lines += [
        f"engine {engine['name']}: {engine['status']}, {_weights(engine['version'])}, {engine['running']} requests"
        for engine in status.get("engines") or ()
        if not over
    ]
    if last_step := figures(status.get("last") or {}):
        lines.append("last step: " + ", ".join(last_step))
    lines += [
        f"waiting for {wait['for']} since {_clock(wait['since'])} ({wait['seconds'] + silent:.0f} s)" for wait in status["waits"]
    ]
    return lines


def _weights(version: int) -> str:
    return f"weights of step {version}" if version >= 0 else "no weights of the learner"


def _seconds(since: str) -> float:
    return datetime.fromisoformat(since).timestamp()


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
