"""What runs have taken, all of them: those that ended well, those that were broken off, those of development.

The study of Olmo 3 found 82 % of its hours of GPUs in development (arXiv 2605.01158): figures of final runs alone say little.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu.config.footprint import NOTHING, Facility, Footprint, footprint
from tulu.errors import DataError, TuluError
from tulu.train.manifest import read_manifest

PARTS = ("gpu_kwh", "cpu_kwh", "ram_kwh")
PHASES = ("rollout", "training", "sync", "evaluation", "other")
_TRAINING = ("share_data", "share_forward", "share_backward", "share_optimizer")


@dataclass(frozen=True)
class Entry:
    """One stage of one run."""

    folder: Path
    state: str
    """finished or unfinished; not measured where no energy is on record."""
    seconds: float
    gpus: int
    """Those that the main process saw."""
    energy: Mapping[str, float]
    """kWh by part, as in PARTS."""
    estimated: tuple[str, ...]
    """Sources that only estimate theirs."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Shares of the time, as in PHASES, which add up to 1."""

    @property
    def kwh(self) -> float:
        """What was measured."""
        return sum(self.energy.values())

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU."""
        return self.gpus * self.seconds / 3600

    def footprint(self, facility: Facility) -> Footprint:
        """What it comes to in a data centre."""
        return footprint(self.kwh, self.gpu_hours, facility)


def read_ledger(places: Iterable[Path]) -> list[Entry]:
    """Every stage with a manifest in these folders and below them, in order. Raises DataError where a folder holds none."""
    entries: dict[Path, Entry] = {}
    for place in places:
        found = list(_stages(place))
        if not found:
            raise DataError(f"{place}: no run lies there (no manifest.json); name a folder of runs, a run or a stage of one")
        entries.update((folder.resolve(), read_entry(folder)) for folder in found)
    return list(entries.values())


def _stages(place: Path) -> Iterator[Path]:
    """The folders with a manifest; those below a stage are its models, checkpoints and rollouts, and are not looked at."""
    if (place / "manifest.json").is_file():
        yield place
    elif place.is_dir():
        for folder in sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from _stages(folder)


def read_entry(folder: Path) -> Entry:
    """What is on record of a stage: its manifest, or its newest checkpoint where it was killed."""
    try:
        manifest = read_manifest(folder)
    except TuluError:
        manifest = {}
    records = [manifest, *_checkpoint_states(folder)]
    # A session that was killed left its last checkpoint, one that stopped the manifest: whichever knows more.
    record = max(records, key=lambda one: _number(_energy(one).get("kwh")))
    energy = {part: _number(_energy(record).get(part)) for part in PARTS}
    state = "finished" if manifest.get("finished") else "unfinished"
    hardware = manifest.get("hardware")
    gpus = hardware.get("accelerators") if isinstance(hardware, dict) else None
    return Entry(
        folder=folder,
        state=state if sum(energy.values()) else f"{state}, not measured",
        seconds=max(_number(one.get("seconds")) for one in records),
        gpus=len(gpus) if isinstance(gpus, list) else 0,
        energy=energy,
        estimated=tuple(map(str, sources)) if isinstance(sources := _energy(record).get("estimated"), list) else (),
        phases=_phases(folder / "metrics.jsonl"),
    )


def _checkpoint_states(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted((folder / "checkpoints").glob("step-*/state.json"))[-1:]:
        yield from _objects(file.read_text(encoding="utf-8", errors="replace"))


def _energy(record: Mapping[str, Any]) -> Mapping[str, Any]:
    energy = record.get("energy")
    return energy if isinstance(energy, dict) else {}


def _phases(file: Path) -> dict[str, float]:
    """The share of each phase in the time of the steps, empty where no step is on record.

    Energy is not measured by phase: it is divided by the learner's time, beside which engines of their own work all along.
    """
    spent = dict.fromkeys(PHASES, 0.0)
    for row in _rows(file):
        seconds = _number(row.get("seconds"))
        known = {
            "rollout": _number(row.get("sampling_seconds")),
            "training": seconds * sum(_number(row.get(name)) for name in _TRAINING),
            "sync": seconds * _number(row.get("share_sync")),
        }
        for phase, share in known.items():
            spent[phase] += share
        spent["other"] += max(0.0, seconds - sum(known.values()))
        # A look comes after the step, whose seconds do not hold it.
        spent["evaluation"] += _number(row.get("eval/seconds"))
    total = sum(spent.values())
    return {phase: seconds / total for phase, seconds in spent.items()} if total else {}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log that may be growing: a line that is not whole is passed over, and the file is left as it is."""
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                yield from _objects(line)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON object that a text is, if it is one."""
    with suppress(ValueError):
        if isinstance(found := json.loads(text), dict):
            yield found


def _number(value: Any) -> float:
    """A number that was recorded; 0 for anything that is none, or could not have been spent."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < math.inf else 0.0


def by_purpose(entries: Iterable[Entry], final: Iterable[str], facility: Facility) -> dict[str, Footprint]:
    """The footprints of final and of development runs, of unfinished ones among these, and of all.

    A stage is final if the name of its run, the folder that it lies in, is among `final` and it was finished.
    """
    names = set(final)
    totals = dict.fromkeys(("final", "development", "of it unfinished", "all"), NOTHING)
    for entry in entries:
        is_final = entry.folder.resolve().parent.name in names and entry.state.startswith("finished")
        own = entry.footprint(facility)
        rows = ["final" if is_final else "development", "all"]
        for row in rows if entry.state.startswith("finished") else [*rows, "of it unfinished"]:
            totals[row] += own
    return totals
