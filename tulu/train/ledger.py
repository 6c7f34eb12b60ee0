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

from tulu.config.footprint import MAKING, NOTHING, Facility, Footprint, Making, footprint
from tulu.config.job import of_steps
from tulu.errors import DataError, TuluError
from tulu.train.manifest import read_manifest

PARTS = ("gpu_kwh", "cpu_kwh", "ram_kwh")
IDLE = "idle and other"
PHASES = ("rollout", "training", "sync", "evaluation", IDLE)
_TRAINING = ("share_data", "share_forward", "share_backward", "share_optimizer")
EARLIER = ".earlier"
"""The folder of what was taken before work was started over: beside the stages of a run STAGE/1, STAGE/2 and so on, in a folder
of results 1.json, 2.json."""
MEASURED, RESULTS = "energy.json", "results.json"
"""What a command has taken that is at work in a folder, and what one leaves that is no stage."""
_COMMANDS = ("evaluate", "sample", "rewardbench")
"""Folders, in a run or among runs, of what is no stage."""


@dataclass(frozen=True)
class Entry:
    """One stage of one run, one attempt at it that was started over, or one command that trains nothing."""

    folder: Path
    name: str
    """What it is called in a table."""
    run: str
    """The run that it belongs to; empty for an attempt that was started over."""
    state: str
    """finished or unfinished; started over; not measured where no energy is on record."""
    seconds: float
    cards: tuple[str, ...]
    """The GPUs that the main process saw, by their names."""
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
    def kwh_by_time(self) -> dict[str, float]:
        """The energy, divided among the phases as the time is."""
        return {phase: self.kwh * share for phase, share in self.phases.items()}

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU."""
        return len(self.cards) * self.seconds / 3600

    def footprint(self, facility: Facility, making: Making = MAKING) -> Footprint:
        """What it comes to in a data centre."""
        gpu = self.energy.get("gpu_kwh", 0.0)
        return footprint(gpu, self.gpu_hours, facility, making, self.kwh - gpu)


def read_ledger(places: Iterable[Path]) -> list[Entry]:
    """All that is on record in these folders and below them, in order. Raises DataError where a folder holds nothing.

    With a stage come the attempts at it that were started over.
    """
    entries: dict[Path, list[Entry]] = {}
    for place in places:
        found = list(_recorded(place))
        if (place / "manifest.json").is_file():
            found += _recorded(place.resolve().parent / EARLIER / place.resolve().name)
        if not found:
            raise DataError(f"{place}: no run lies there (no manifest.json); name a folder of runs, a run or a stage of one")
        entries.update((folder.resolve(), read_folder(folder)) for folder in found)
    return [entry for folder in entries.values() for entry in folder]


def read_beside(run: Path) -> list[Entry]:
    """What is on record in the folder of a run beside its stages: attempts that were started over, and evaluations."""
    places = [run / name for name in (EARLIER, *_COMMANDS)]
    return [entry for place in places for folder in _recorded(place) for entry in read_folder(folder)]


def _recorded(place: Path) -> Iterator[Path]:
    """The folders of stages and results; those below a stage are its models, checkpoints and rollouts, and are not looked at."""
    if (place / "manifest.json").is_file():
        yield place
    elif place.is_dir():
        if any((place / name).is_file() for name in (MEASURED, RESULTS)) or any((place / EARLIER).glob("*.json")):
            yield place
        for folder in sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink()):
            yield from _recorded(folder)


def read_folder(folder: Path) -> list[Entry]:
    """What is on record of a stage, or of a command with its attempts that were started over."""
    if (folder / "manifest.json").is_file():
        return [read_entry(folder)]
    entries = []
    for file in sorted((folder / EARLIER).glob("*.json")):
        attempt, name = _read(file), f"{_name(folder)}, attempt {file.stem}"
        entries.append(_started_over(_entry(folder, name, "", [attempt], _of_command(attempt))))
    if record := _read(folder / MEASURED):
        entries.append(_entry(folder, _name(folder), _run(folder), [record], _of_command(record)))
    elif not entries and (record := _read(folder / RESULTS)):
        # They hold the same energy, or were written before it was measured.
        entries.append(_entry(folder, _name(folder), _run(folder), [{**record, "finished": True}], {"evaluation": 1.0}))
    return entries


def read_entry(folder: Path) -> Entry:
    """What is on record of a stage: its manifest, or what it wrote while it went on where it was killed."""
    try:
        manifest = read_manifest(folder)
    except TuluError:
        manifest = {}
    # A session that was killed left its last checkpoint, one that stopped the manifest: whichever knows more.
    records = [manifest, _read(folder / MEASURED), *_checkpoint_states(folder)]
    phases = _phases(folder / "metrics.jsonl") or _shares(manifest.get("phases"))
    if folder.parent.parent.name != EARLIER:
        return _entry(folder, _name(folder), _run(folder), records, phases)
    run, stage = folder.resolve().parts[-4], folder.parent.name
    return _started_over(_entry(folder, f"{run}/{stage}, attempt {folder.name}", "", records, phases))


def _entry(folder: Path, name: str, run: str, records: list[dict[str, Any]], phases: Mapping[str, float]) -> Entry:
    """An entry of the record that knows most energy; the first one says how it ended, and on which GPUs it was."""
    record = max(records, key=lambda one: _number(_energy(one).get("kwh")))
    energy = {part: _number(_energy(record).get(part)) for part in PARTS}
    state = "finished" if records[0].get("finished") else "unfinished"
    cards: Any = next((one["hardware"].get("accelerators") for one in records if isinstance(one.get("hardware"), dict)), None)
    sources = _energy(record).get("estimated")
    return Entry(
        folder=folder,
        name=name,
        run=run,
        state=state if sum(energy.values()) else f"{state}, not measured",
        seconds=max(value for one in records for value in (_number(one.get("seconds")), _number(_energy(one).get("seconds")))),
        cards=tuple(map(str, cards)) if isinstance(cards, list) else (),
        energy=energy,
        estimated=tuple(map(str, sources)) if isinstance(sources, list) else (),
        phases=phases,
    )


def _started_over(entry: Entry) -> Entry:
    words = entry.state.split(", ")
    return Entry(**{**vars(entry), "state": ", ".join([words[0], "started over", *words[1:]])})


def _of_command(record: Mapping[str, Any]) -> dict[str, float]:
    """A command that trains nothing is in one phase from its beginning to its end: evaluation, unless it says so."""
    return {phase: 1.0} if (phase := record.get("phase")) in PHASES else {"evaluation": 1.0}


def _name(folder: Path) -> str:
    """RUN/STAGE, or the last three folders of what is no stage."""
    parts = folder.resolve().parts
    return "/".join(parts[-2:] if (folder / "manifest.json").is_file() else parts[-3:])


def _run(folder: Path) -> str:
    """The name of the folder that holds a stage, or the folder `evaluate` that results lie in."""
    parts = folder.resolve().parts
    is_stage = (folder / "manifest.json").is_file()
    places = [] if is_stage else [place for place, part in enumerate(parts) if part in _COMMANDS and place]
    return parts[places[-1] - 1] if places else folder.resolve().parent.name


def _checkpoint_states(folder: Path) -> Iterator[dict[str, Any]]:
    for checkpoint in [*of_steps(folder / "checkpoints").values()][-1:]:
        yield _read(checkpoint / "state.json")


def _read(file: Path) -> dict[str, Any]:
    """The JSON object in a file; {} where there is no file, or no object in it."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return next(_objects(text), {})


def _energy(record: Mapping[str, Any]) -> Mapping[str, Any]:
    energy = record.get("energy")
    return energy if isinstance(energy, dict) else {}


def _shares(record: Any) -> dict[str, float]:
    """The phases of an attempt that was started over, as they were written down then."""
    shares = {phase: _number(record.get(phase)) for phase in PHASES} if isinstance(record, dict) else {}
    return shares if sum(shares.values()) > 0 else {}


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
        spent[IDLE] += max(0.0, seconds - sum(known.values()))
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
    with suppress(ValueError, RecursionError):
        if isinstance(found := json.loads(text), dict):
            yield found


def _number(value: Any) -> float:
    """A number that was recorded; 0 for anything that is none, or could not have been spent."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < math.inf else 0.0


def by_purpose(
    entries: Iterable[Entry], final: Iterable[str], facility: Facility, making: Making = MAKING
) -> dict[str, Footprint]:
    """The footprints of final and of development runs, of unfinished ones among these, and of all.

    An entry is final if the name of its run, or its own, is among `final` and it was finished and not started over.
    """
    names = set(final)
    totals = dict.fromkeys(("final", "development", "of it unfinished", "all"), NOTHING)
    for entry in entries:
        is_done = entry.state.startswith("finished")
        is_final = is_done and "started over" not in entry.state and bool(names & {entry.run, entry.name})
        own = entry.footprint(facility, making)
        rows = ["final" if is_final else "development", "all"]
        for row in rows if is_done else [*rows, "of it unfinished"]:
            totals[row] += own
    return totals


def by_time(entries: Iterable[Entry]) -> dict[str, float]:
    """kWh of each phase over all entries, divided as the time is."""
    totals = dict.fromkeys(PHASES, 0.0)
    for entry in entries:
        for phase, kwh in entry.kwh_by_time.items():
            totals[phase] += kwh
    return totals
