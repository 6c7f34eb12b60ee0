"""Commands of every day that train nothing: each a function that the command line reads, with its work in a file of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def energy(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders of runs, runs, or stages of runs.")],
    final: Annotated[list[str] | None, typer.Option(help="Name of a run of the release; others are development.")] = None,
    facility: Annotated[str | None, typer.Option(help="Data centre: olmo3 (the default), jupiter or augusta.")] = None,
    overhead: Annotated[float | None, typer.Option(help="kWh of the data centre for each one measured, such as its PUE.")] = None,
    carbon: Annotated[float | None, typer.Option(help="kg CO2e a kWh of the grid.")] = None,
    water_on: Annotated[float | None, typer.Option(help="Litres a kWh evaporated on site.")] = None,
    water_off: Annotated[float | None, typer.Option(help="Litres a kWh consumed where power is generated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON into this file.")] = None,
) -> None:
    """What runs took, finished or not: energy by phase, carbon and water."""
    from tulu.commands.energy import facility_of, show_ledger

    figures = {"overhead": overhead, "carbon": carbon, "water_on": water_on, "water_off": water_off}
    show_ledger(runs, final or (), facility_of(facility, **figures), out)


DAILY: tuple[Callable[..., None], ...] = (energy,)
"""The commands, by the names of their functions."""
