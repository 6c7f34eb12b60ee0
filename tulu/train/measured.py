"""The energy of the work in a folder, on the disk while it goes on, over all sessions in which it was done."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from tulu.files import write_atomic
from tulu.train.energy import PARTS, Energy, EnergyMeter
from tulu.train.ledger import EARLIER, MEASURED
from tulu.train.manifest import hardware, read_manifest

Phase = Literal["training", "evaluation", "rollout"]


class Measured:
    """What is taken by the work in a folder, in its energy.json; the record of work that was started over lies in `.earlier`."""

    def __init__(self, folder: Path, phase: Phase, before: Energy) -> None:
        """Measure on top of what earlier sessions took."""
        self._file = folder / MEASURED
        self._facts = {"phase": phase, "hardware": {"accelerators": hardware()["accelerators"]}}
        self.energy = before
        """Of all sessions; this one's is in it once the work is over."""
        self._meter = EnergyMeter(before, lambda energy: self._write(energy, False))

    def read(self) -> Energy:
        """The energy so far."""
        return self._meter.read()

    def close(self, finished: bool) -> Energy:
        """Stop measuring, and write down whether the work came to its end; returns the energy of all sessions."""
        self.energy = self._meter.stop()
        self._write(self.energy, finished)
        return self.energy

    def _write(self, energy: Energy, finished: bool) -> None:
        # A full disk, of which whoever writes answers speaks, is no reason to hide why a command ended.
        with suppress(OSError):
            content = {**self._facts, "finished": finished, "energy": energy}
            write_atomic(self._file, json.dumps(content, indent=2) + "\n")


@contextmanager
def measured(folder: Path, anew: bool, phase: Phase = "evaluation") -> Iterator[Measured]:
    """While the context lasts, energy is measured; it is on the disk twice a minute, and at the end however that comes.

    Where the work is done `anew`, what it took before is put aside, else it is added to.
    """
    if anew and (folder / MEASURED).is_file():
        earlier = folder / EARLIER
        earlier.mkdir(exist_ok=True)
        number = 1 + max((int(file.stem) for file in earlier.glob("*.json") if file.stem.isdigit()), default=0)
        (folder / MEASURED).rename(earlier / f"{number}.json")
    meter = Measured(folder, phase, energy_before(folder))
    finished = False
    try:
        yield meter
        finished = True
    finally:
        meter.close(finished)


def was_finished(folder: Path) -> bool:
    """Whether the work that was last measured in a folder came to its end."""
    return _record(folder).get("finished") is True


def energy_before(folder: Path) -> Energy:
    """What earlier sessions of the work in a folder took; {} where no record says it, or a damaged one."""
    return _sound(_record(folder).get("energy"))


def on_record(folder: Path, known: Energy) -> Energy:
    """What earlier sessions of a stage took: the most of what is known, its manifest's, and what one wrote that was killed.

    A record whose figures are damaged counts as none.
    """
    records = (_sound(known), _sound(read_manifest(folder).get("energy")), energy_before(folder))
    return max(records, key=lambda energy: energy.get("kwh", 0.0))


def _sound(energy: Any) -> Energy:
    """The energy of a record, if its figures are amounts; {} if not."""
    if not isinstance(energy, dict):
        return {}
    figures = [energy.get(name, 0.0) for name in ("kwh", "seconds", *PARTS)]
    return energy if all(type(value) in (int, float) and 0 <= value < math.inf for value in figures) else {}


def _record(folder: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        if isinstance(found := json.loads((folder / MEASURED).read_text(encoding="utf-8")), dict):
            return found
    return {}
