"""Ranks as processes that are forked from one which has imported everything, since imports would take most of the time."""

import os
import time
from pathlib import Path

from tests import forked
from tests.ranks.stages import KINDS, Cell, Death, rank_main
from tulu.commands.launch import reserved_port

PATIENCE = 300.0
"""Seconds that a launch may take."""


def launch(cell: Cell, folder: Path, kinds: tuple[str, ...] = tuple(KINDS), death: Death | None = None) -> list[int]:
    """Run a cell's processes; their exit codes, once all have ended by themselves. AssertionError if one hangs."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with reserved_port() as port:
        return _launch(cell, folder, kinds, death, port)


def _launch(cell: Cell, folder: Path, kinds: tuple[str, ...], death: Death | None, port: int) -> list[int]:
    context = forked.context()
    settings = (port, cell, folder, kinds, death)
    ranks = [context.Process(target=rank_main, args=(rank, *settings), daemon=True) for rank in range(cell.world)]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + PATIENCE
    try:
        while any(rank.is_alive() for rank in ranks):
            if any(rank.exitcode for rank in ranks):
                deadline = min(deadline, time.monotonic() + forked.GRACE)
            assert time.monotonic() < deadline, f"a process hangs:\n{said(cell, folder)}"
            time.sleep(0.05)
    finally:
        for rank in ranks:
            rank.kill()
    return [rank.exitcode or 0 for rank in ranks]


def said(cell: Cell, folder: Path) -> str:
    """The end of what each process said."""
    return "\n".join(f"{file.name}: …{file.read_text()[-3000:]}" for file in sorted(folder.glob(f"{cell.name}-?.log")))


def run(cell: Cell, folder: Path, kinds: tuple[str, ...] = tuple(KINDS)) -> None:
    """Run a cell's processes, none of which may fail."""
    codes = launch(cell, folder, kinds)
    assert not any(codes), said(cell, folder)
