"""`tulu energy RUNS…`: a ledger of what runs took, and what that comes to in a data centre."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.config.footprint import DEFAULT, EMBODIED_KG, FACILITIES, LIFE_HOURS, Facility, Footprint
from tulu.errors import RecipeError
from tulu.files import make_room_for, write_atomic
from tulu.train.ledger import PARTS, PHASES, Entry, by_purpose, read_ledger

_COLUMNS = 130
"""Width of the tables where they go into a file or a pipe."""


def facility_of(name: str | None, **figures: float | None) -> Facility:
    """A published data centre, with the figures that are given in place of its own. Raises RecipeError."""
    chosen = name or DEFAULT
    if chosen not in FACILITIES:
        raise RecipeError(
            f"--facility {chosen}: is not known; {', '.join(FACILITIES)} are, and every figure can be given by itself"
        )
    own = {key: value for key, value in figures.items() if value is not None}
    if bad := [key for key, value in own.items() if not 0 <= value < 1e6]:
        raise RecipeError(f"--{bad[0].replace('_', '-')}: should be a number from 0 on")
    facility = FACILITIES[chosen]
    return replace(facility, **own, source=facility.source + "".join(f"; {key} as given" for key in own)) if own else facility


def show_ledger(places: Sequence[Path], final: Sequence[str], facility: Facility, out: Path | None) -> None:
    """Print every stage of the runs in some folders, and their sums. Raises DataError where there is none."""
    entries = read_ledger(places)
    totals = by_purpose(entries, final, facility)
    if out is not None:
        if out.is_dir():
            raise RecipeError(f"--out {out}: is a folder; name a file, such as {out / 'energy.json'}")
        make_room_for(out, "--out")
        rows = [
            {
                **{"folder": str(entry.folder), "state": entry.state, "seconds": entry.seconds, "gpu_hours": entry.gpu_hours},
                **{**entry.energy, "estimated": entry.estimated, "phases": entry.phases},
                **asdict(entry.footprint(facility)),
            }
            for entry in entries
        ]
        content = {
            "facility": asdict(facility),
            "stages": rows,
            "totals": {name: asdict(total) for name, total in totals.items()},
        }
        write_atomic(out, json.dumps(content, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else _COLUMNS)
    console.print(_stages_table(entries))
    console.print(_totals_table(totals))
    for line in _notes(entries, facility, bool(final)):
        typer.echo(line)


def _stages_table(entries: Sequence[Entry]) -> Table:
    table = Table(title="energy measured, kWh")
    for name in ("stage", "state", "hours", "GPU-hours", *(part.removesuffix("_kwh").upper() for part in PARTS)):
        table.add_column(name, justify="left" if name in ("stage", "state") else "right", overflow="fold")
    table.add_column("by the learner's time", overflow="fold")
    for entry in entries:
        phases = ", ".join(f"{phase} {entry.phases[phase]:.0%}" for phase in PHASES if entry.phases.get(phase, 0.0) >= 0.005)
        figures = [f"{entry.seconds / 3600:,.2f}", f"{entry.gpu_hours:,.2f}", *(_figure(entry.energy[part]) for part in PARTS)]
        table.add_row(escape("/".join(entry.folder.parts[-2:])), entry.state, *figures, phases)
    return table


def _totals_table(totals: dict[str, Footprint]) -> Table:
    table = Table(title="what it comes to")
    for name in ("runs", "measured kWh", "data centre kWh", "kg CO2e", "litres of water", "embodied kg CO2e", "embodied litres"):
        table.add_column(name, justify="left" if name == "runs" else "right", overflow="fold")
    for name, total in totals.items():
        table.add_row(name, *map(_figure, total.values()))
    return table


def _notes(entries: Sequence[Entry], facility: Facility, named: bool) -> list[str]:
    water = facility.water_on + facility.water_off
    lines = [
        f"data centre: × {facility.overhead:g}, {facility.carbon:.4g} kg CO2e and {water:g} l of water a kWh: {facility.source}",
        f"embodied: {EMBODIED_KG:g} kg an H100 over {LIFE_HOURS:,} hours (arXiv 2503.05804)",
        "measured: the whole machine of the main process; other nodes are not in it",
    ]
    if estimated := sorted({source for entry in entries for source in entry.estimated}):
        lines.append(f"only estimated, from load and size: {', '.join(name.removesuffix('()') for name in estimated)}")
    if unknown := [entry for entry in entries if entry.state.endswith("not measured")]:
        lines.append(f"{len(unknown)} of {len(entries)} stages have no energy on record and count as 0")
    if not named:
        lines.append("every run counts as development: name those of a release with --final NAME")
    return lines


def _figure(value: float) -> str:
    return "0" if not value else f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
