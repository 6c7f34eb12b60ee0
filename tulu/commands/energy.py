"""`tulu energy RUNS…`: a ledger of what runs took, and what that comes to in a data centre."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.config.footprint import DEFAULT, FACILITIES, MAKING, Facility, Footprint, Making
from tulu.errors import RecipeError
from tulu.files import make_room_for, write_atomic
from tulu.train.ledger import PARTS, PHASES, Entry, by_purpose, by_time, read_ledger

_COLUMNS = 130
"""Width of the tables where they go into a file or a pipe."""


def facility_of(name: str | None, **figures: float | None) -> Facility:
    """A published data centre, with the figures that are given in place of its own. Raises RecipeError."""
    chosen = name or DEFAULT
    if chosen not in FACILITIES:
        raise RecipeError(
            f"--facility {chosen}: is not known; {', '.join(FACILITIES)} are, and every figure can be given by itself"
        )
    own = _given(figures)
    facility = FACILITIES[chosen]
    return replace(facility, **own, source=facility.source + "".join(f"; {key} as given" for key in own)) if own else facility


def making_of(embodied: float | None, embodied_water: float | None) -> Making:
    """What making a GPU has taken for each hour of it, the figures that are given in place of its own. Raises RecipeError."""
    given = _given({"embodied": embodied, "embodied_water": embodied_water})
    carbon, water = given.get("embodied", MAKING.carbon), given.get("embodied_water", MAKING.water)
    if len(given) == 2:
        return Making(carbon, water, "", "as given")
    return Making(carbon, water, MAKING.card, "".join(f"{key.replace('_', '-')} as given; " for key in given) + MAKING.source)


def _given(figures: Mapping[str, float | None]) -> dict[str, float]:
    """The figures that were given. Raises RecipeError where one is none that can be."""
    own = {key: value for key, value in figures.items() if value is not None}
    if bad := [key for key, value in own.items() if not 0 <= value < 1e6]:
        raise RecipeError(f"--{bad[0].replace('_', '-')}: should be a number from 0 on")
    return own


def show_ledger(places: Sequence[Path], final: Sequence[str], facility: Facility, making: Making, out: Path | None) -> None:
    """Print all that is on record in some folders, and its sums. Raises DataError where there is nothing."""
    entries = read_ledger(places)
    totals = by_purpose(entries, final, facility, making)
    if out is not None:
        if out.is_dir():
            raise RecipeError(f"--out {out}: is a folder; name a file, such as {out / 'energy.json'}")
        make_room_for(out, "--out")
        rows = [
            {
                **{"folder": str(entry.folder), "name": entry.name, "state": entry.state, "seconds": entry.seconds},
                **{"gpu_hours": entry.gpu_hours, "gpus": entry.cards, **entry.energy, "estimated": entry.estimated},
                **{"phases": entry.phases, "kwh_by_time": entry.kwh_by_time},
                **asdict(entry.footprint(facility, making)),
            }
            for entry in entries
        ]
        content = {
            **{"facility": asdict(facility), "making": asdict(making), "stages": rows, "kwh_by_time": by_time(entries)},
            "totals": {name: asdict(total) for name, total in totals.items()},
        }
        write_atomic(out, json.dumps(content, indent=2) + "\n")
    console = Console(width=None if sys.stdout.isatty() else _COLUMNS)
    console.print(_stages_table(entries))
    console.print(_totals_table(totals))
    for line in [*_notes(entries, facility), *_making_notes(entries, making)]:
        typer.echo(line)
    if not final:
        typer.echo("every run counts as development: name those of a release with --final NAME")


def _stages_table(entries: Sequence[Entry]) -> Table:
    table = Table(title="energy measured, kWh")
    for name in ("stage", "state", "hours", "GPU-hours", *(part.removesuffix("_kwh").upper() for part in PARTS)):
        table.add_column(name, justify="left" if name in ("stage", "state") else "right", overflow="fold")
    table.add_column("kWh by time", overflow="fold")
    for entry in entries:
        spent = entry.kwh_by_time
        phases = ", ".join(_phase(phase, spent[phase], entry.phases[phase]) for phase in PHASES if _is_told(entry, phase))
        figures = [f"{entry.seconds / 3600:,.2f}", f"{entry.gpu_hours:,.2f}", *(_figure(entry.energy[part]) for part in PARTS)]
        table.add_row(escape(entry.name), entry.state, *figures, phases)
    return table


def _is_told(entry: Entry, phase: str) -> bool:
    return entry.kwh > 0 and entry.phases.get(phase, 0.0) >= 0.005


def _phase(name: str, kwh: float, share: float) -> str:
    return f"{name} {_figure(kwh)} ({share:.0%})"


def _totals_table(totals: dict[str, Footprint]) -> Table:
    table = Table(title="what it comes to")
    figures = ("measured kWh", "GPU kWh", "data centre kWh", "kg CO2e", "litres of water", "embodied kg CO2e", "embodied litres")
    for name in ("runs", *figures):
        table.add_column(name, justify="left" if name == "runs" else "right", overflow="fold")
    for name, total in totals.items():
        table.add_row(name, *map(_figure, total.values()))
    return table


def _notes(entries: Sequence[Entry], facility: Facility) -> list[str]:
    """How the energy was counted, and what is not known of it."""
    water = facility.water_on + facility.water_off
    lines = [
        f"data centre: × {facility.overhead:g}, {facility.carbon:.4g} kg CO2e and {water:g} l of water a kWh: {facility.source}",
    ]
    if any(entry.energy["gpu_kwh"] and entry.kwh > entry.energy["gpu_kwh"] for entry in entries):
        lines.append(
            f"× {facility.overhead:g} is of the energy of GPUs alone, as the studies have it, and stands for that of CPUs and "
            "memory too; where no GPU was measured, of all that was"
        )
    spent, whole = by_time(entries), sum(entry.kwh for entry in entries)
    spent["at no known time"] = whole - sum(spent.values())
    if whole:
        told = ", ".join(_phase(phase, kwh, kwh / whole) for phase, kwh in spent.items() if kwh >= 0.005 * whole)
        lines.append(f"kWh by time: {told}; energy is measured as a whole, and divided as the learner's time is")
    lines.append("measured: the whole machine of the main process; other nodes are not in it")
    if estimated := sorted({source for entry in entries for source in entry.estimated}):
        lines.append(f"only estimated, from load and size: {', '.join(name.removesuffix('()') for name in estimated)}")
    if unknown := [entry for entry in entries if entry.state.endswith("not measured")]:
        lines.append(f"{len(unknown)} of {len(entries)} entries have no energy on record and count as 0")
    return lines


def _making_notes(entries: Sequence[Entry], making: Making) -> list[str]:
    """Of which GPU the figures of its making are, and for which others they were taken."""
    card = f"an {making.card}" if making.card else "a GPU"
    lines = [f"embodied: {making.carbon:.3g} kg CO2e and {making.water:.2g} l an hour of {card}: {making.source}"]
    others = {name for entry in entries if entry.seconds for name in entry.cards if making.card not in name.upper()}
    if others:
        lines.append(
            f"  taken for {', '.join(sorted(others))} too, of whose making nothing is published here: give --embodied KG and "
            "--embodied-water LITRES for each hour of a GPU"
        )
    return lines


def _figure(value: float) -> str:
    return "0" if not value else f"{value:,.1f}" if value >= 100 else f"{value:.3g}"
