"""What processes that train together must have in common, and who of them goes first where one does the work for all."""

import logging
import os
import platform
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Any, TypeVar

import torch
import xxhash

from tulu.data.workers import plain_error
from tulu.errors import RecipeError, TuluError
from tulu.files import differences
from tulu.model.load import hub_commit
from tulu.model.parallel import Parallel
from tulu.model.processes import Processes

log = logging.getLogger("tulu")

T = TypeVar("T")

SAY_AFTER = 10.0
"""Seconds of waiting after which the log says what the other processes wait for."""
PATIENCE = timedelta(days=7)
"""How long they wait. The limit of other collectives is minutes, which a large mix may take; who dies is missed at once."""
SAMPLED = 16 * 2**20
"""Bytes above which a file of weights is read in samples."""
SAMPLE, SAMPLES = 2**16, 64


def agree(parallel: Parallel, facts: Mapping[str, Any]) -> None:
    """Raises RecipeError in every process, with the same message, unless all of them have the facts of rank 0."""
    everyone = parallel.exchange(dict(facts))
    lines = [
        f"rank {rank}: {line}" for rank, theirs in enumerate(everyone) for line in differences(everyone[0], theirs) if theirs
    ]
    if lines:
        listed = "\n  ".join(lines)
        cure = "Give all of them the same recipe, packages, data and model folders, on every machine."
        raise RecipeError(f"the processes do not see what rank 0 sees (rank 0 -> the other):\n  {listed}\n{cure}")


def software() -> dict[str, str]:
    """What must be the same on all machines: the code of this package, and the versions that numbers depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate")}
    code = xxhash.xxh3_64()
    package = Path(__file__).resolve().parents[1]
    for folder, _, names in sorted(os.walk(package, followlinks=True)):
        for name in sorted(name for name in names if name.endswith((".py", ".jinja"))):
            code.update(name.encode() + (Path(folder) / name).read_bytes())
    return {"python": platform.python_version(), **packages, "code of tulu": code.hexdigest()}


def from_main(parallel: Processes, what: str, work: Callable[[], T]) -> T:
    """The result of `work()`, which the main process alone calls while the others wait; its TuluError is raised in all.

    `what` says what the others wait for, as in "the rows to be tokenised".
    """
    if parallel.world == 1:
        return work()
    group = _patient_group()
    outcome: list[Any] = [None, None]
    if parallel.is_main:
        waiting = Timer(SAY_AFTER, log.info, ("%d other processes wait for %s", parallel.world - 1, what))
        waiting.daemon = True
        waiting.start()
        try:
            outcome[0] = work()
        except TuluError as error:
            outcome[1] = plain_error(error)
        finally:
            waiting.cancel()
    torch.distributed.broadcast_object_list(outcome, src=0, group=group)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


@cache
def _patient_group() -> Any:
    """A connection of all processes for waiting, on the CPU whatever they train on."""
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def start_digest(start: str, revision: str | None) -> str:
    """What a process sees of the model that a stage starts from, read in under a second: its files, or its commit on the hub.

    Every process asks its own disk, also where the weights are sharded and no process ever holds all of them.
    """
    folder = Path(start)
    return files_digest(folder) if folder.is_dir() else hub_commit(start, revision)


def files_digest(folder: Path) -> str:
    """Hash of the names, sizes and contents of a model folder's files; of large ones, of samples spread over the file."""
    digest = xxhash.xxh3_128()
    for file in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= SAMPLED:
                digest.update(stream.read())
                continue
            for number in range(SAMPLES):
                stream.seek(number * (size - SAMPLE) // (SAMPLES - 1))
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()
