"""The parts of a report that are text and tables, as plain values for the template, which escapes every one of them."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tulu.config.footprint import DEFAULT, FACILITIES, NOTHING
from tulu.config.job import START
from tulu.report.reading import Object, listed, number, pair, part
from tulu.report.runs import Measured, ReportedRun, ReportedStage, accuracy_of, answers_of
from tulu.report.sampling import Census
from tulu.report.svg import bar, whisker
from tulu.train.ledger import PARTS, PHASES, read_beside, read_entry

ANSWERS = 8
"""Held-out questions whose answers are shown through the chain."""
_READ = 400
"""Answers among which those are looked for."""
LISTED_FAULTS = 12
_PARTS = ("GPU", "CPU", "memory")
"""What people call the parts of the ledger, in its order."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    cells: list[str | Markup]
    state: str = ""
    """The class of its look: finished, unfinished, total."""


def chain(run: ReportedRun, colour: int) -> list[Row]:
    """The start and every stage with its held-out accuracy, what it changed, and what it took.

    A reward model has no answers to be right or wrong: its share of held-out pairs is marked as one, and changes nothing.
    """
    rows, before = [], accuracy_of(run.start)
    if before is not None:
        rows.append(Row([START, "before any stage", *_measured(before, colour), "", "–", "–", "–", "–"]))
    for stage in run.stages:
        figures: list[str | Markup] = ["", "–", "", ""]
        if (found := stage.accuracy) is not None:
            change = "" if before is None else f"{100 * (found[0] - before[0]):+.1f}".replace("-", "−")
            figures, before = [*_measured(found, colour), change], found
        elif (pairs := stage.pairs_right) is not None:
            figures = [*_measured(pairs, colour, " of pairs"), ""]
        seconds, speed = number(stage.manifest.get("seconds")), stage.tokens_per_second
        kwh = number(part(stage.manifest, "energy").get("kwh"))
        rows.append(
            Row(
                [
                    stage.name,
                    stage.state,
                    *figures,
                    f"{stage.steps:,}" if stage.steps else "–",
                    "–" if seconds is None else duration(seconds),
                    "–" if speed is None else f"{speed:,.0f}",
                    "–" if kwh is None else energy_text(kwh),
                ],
                "finished" if stage.finished else "unfinished",
            )
        )
    return rows


def _measured(found: Measured, colour: int, of: str = "") -> list[str | Markup]:
    """A share as a picture, in words, and its interval."""
    value, interval = found
    span = "" if interval is None else f"{100 * interval[0]:.1f} – {100 * interval[1]:.1f}"
    return [whisker(value, interval, colour), f"{100 * value:.1f} %{of}", span]


def answers(run: ReportedRun) -> list[dict[str, Any]]:
    """The same held-out questions through the chain, first those that only the last stage solves."""
    evaluated = [START] if run.start else []
    evaluated += [stage.name for stage in run.stages if stage.results]
    found = {name: answers_of(run, name, _READ) for name in evaluated}
    by_id = {name: {str(row.get("id")): row for row in rows} for name, rows in found.items() if rows}
    if not by_id:
        return []
    names = list(by_id)
    shared = [row for row in by_id[names[-1]] if all(row in by_id[name] for name in names)]

    def gained(question: str) -> bool:
        first, last = (number(by_id[name][question].get("score")) or 0.0 for name in (names[0], names[-1]))
        return last > first

    chosen = sorted(shared, key=lambda question: not gained(question))[:ANSWERS]
    return [
        {
            "prompt": str(by_id[names[-1]][question].get("prompt") or "")[:600],
            "truth": str(by_id[names[-1]][question].get("ground_truth") or "")[:200],
            "rows": [
                {
                    "stage": name,
                    "text": str(by_id[name][question].get("completion") or "")[:500],
                    "right": (number(by_id[name][question].get("score")) or 0.0) > 0,
                }
                for name in names
            ],
        }
        for question in chosen
    ]


def looks(stage: ReportedStage) -> list[dict[str, Any]]:
    """Sample answers that were taken while a stage trained, the last ones first."""
    return [
        {
            "step": step,
            "prompt": str(row.get("prompt") or "")[:600],
            "text": str(row.get("answer") or "")[:600],
            "expected": str(row.get("expected") or "")[:200],
            "score": number(row.get("score")),
        }
        for step, row in stage.looks
    ]


def samples(stage: ReportedStage, most: int, length: int) -> list[dict[str, Any]]:
    """Rows as the model reads them, each completion a list of (text, whether it is trained)."""
    shown = []
    for row in stage.samples[:most]:
        completions = listed(row.get("completions"))
        names = ("chosen", "rejected") if len(completions) == 2 else ("",) * len(completions)
        parts = [("prompt", _stretches(row.get("prompt"), length))]
        parts += [(name, _stretches(one, length)) for name, one in zip(names, completions, strict=True)]
        counts = {name: int(number(row.get(name)) or 0) for name in ("tokens", "trained", "cut")}
        shown.append({"id": str(row.get("id")), **counts, "parts": [(name, *texts) for name, texts in parts if texts[0]]})
    return shown


def _stretches(found: Any, length: int) -> tuple[list[tuple[str, bool]], bool]:
    """Stretches of text up to so many characters, and whether some are left out."""
    kept: list[tuple[str, bool]] = []
    for one in listed(found):
        if length <= 0:
            return kept, True
        if isinstance(one, list) and len(one) == 2 and isinstance(one[0], str):
            kept.append((one[0][:length], bool(one[1])))
            if len(one[0]) > length:
                return kept, True
            length -= len(one[0])
    return kept, False


def rewardbench(results: Object) -> dict[str, Any]:
    """The bars of one evaluation on RewardBench."""
    intervals = part(results, "intervals")
    bars = []
    for name, subset in part(results, "subsets").items():
        accuracy = number(subset.get("accuracy")) if isinstance(subset, dict) else None
        span = pair(part(intervals, "subsets").get(name))
        count = int(number(subset.get("count")) or 0) if isinstance(subset, dict) else 0
        drawn = Markup("") if accuracy is None else bar(accuracy, span)
        figure = "–" if accuracy is None else f"{100 * accuracy:.1f} %"
        bars.append(
            Row([name, drawn, figure, "" if span is None else f"{100 * span[0]:.1f} – {100 * span[1]:.1f}", f"{count:,}"])
        )
    sections = {name: number(value) for name, value in part(results, "sections").items()}
    score, span = number(results.get("score")), pair(intervals.get("score"))
    return {
        "title": str(results.get("title")),
        "score": None if score is None else f"{100 * score:.1f} %",
        "span": "" if span is None else f"{100 * span[0]:.1f} – {100 * span[1]:.1f}",
        "bars": bars,
        "sections": [(name, f"{100 * value:.1f} %") for name, value in sections.items() if value is not None],
        "notes": [str(note) for note in listed(results.get("notes")) if isinstance(note, str)],
    }


def faults(stage: ReportedStage, census: Census) -> dict[str, Any]:
    """Of an RLVR stage, how many completions its verifiers could not score, and why."""
    rows = [
        Row([verifier, status, reason, f"{count:,}"])
        for (verifier, status, reason), count in census.faults.most_common(LISTED_FAULTS)
    ]
    left = sum(census.faults.values()) - sum(count for _, count in census.faults.most_common(LISTED_FAULTS))
    return {
        "stage": stage.name,
        "rollouts": f"{census.rollouts:,}",
        "groups": f"{census.groups:,}",
        "masked": share(census.masked, census.rollouts),
        "truncated": share(census.truncated, census.rollouts),
        "verifiers": [(name, f"{count:,}") for name, count in census.by_verifier.most_common(40)],
        "rows": rows,
        "left": left,
    }


def evaluation_faults(stages: Sequence[ReportedStage]) -> list[tuple[str, str]]:
    """Of the evaluations, how many answers have no verdict."""
    found = []
    for stage in stages:
        statuses = {name: int(number(count) or 0) for name, count in part(stage.results, "statuses").items() if name != "ok"}
        if told := ", ".join(f"{count:,} {name}" for name, count in statuses.items() if count):
            found.append((stage.name, told))
    return found


def energy(run: ReportedRun) -> dict[str, Any]:
    """What each stage took, by parts and by phases, what is only estimated, and what it comes to in a data centre."""
    rows, together, estimated, facility = [], [0.0] * (1 + len(PARTS) + len(PHASES)), set[str](), FACILITIES[DEFAULT]
    whole = NOTHING
    entries = []
    for stage in run.stages:
        # The files that it reads are among those that are named at the top where they are damaged.
        with suppress(OSError):
            entries.append((stage.name, read_entry(stage.folder)))
    with suppress(OSError):
        entries += [(entry.name.removeprefix(f"{run.folder.name}/"), entry) for entry in read_beside(run.folder)]
    for name, entry in entries:
        if not entry.kwh > 0:
            continue
        parts = [entry.energy.get(part, 0.0) for part in PARTS]
        values = [entry.kwh, *parts, *(entry.kwh_by_time.get(phase, 0.0) for phase in PHASES)]
        together = [before + value for before, value in zip(together, values, strict=True)]
        estimated.update(entry.estimated)
        whole += entry.footprint(facility)
        rows.append(Row([name, *map(energy_text, values)]))
    if len(rows) > 1:
        rows.append(Row(["together", *map(energy_text, together)], "total"))
    water = f"{whole.water_litres:.3g} l of water"
    made = f", and {whole.embodied_kg:.2g} kg of making the GPUs" if whole.embodied_kg else ""
    return {
        "rows": rows,
        "columns": ["all", *_PARTS, *PHASES],
        "estimated": ", ".join(sorted(estimated)),
        "facility": f"{energy_text(whole.facility_kwh)}, {whole.carbon_kg:.3g} kg CO2e{made}, {water}",
        "source": facility.source,
    }


def provenance(stage: ReportedStage) -> list[tuple[str, str]]:
    """On what a stage ran, and from where."""
    manifest = stage.manifest
    hardware, versions, pinned = part(manifest, "hardware"), part(manifest, "versions"), part(manifest, "pinned")
    command = manifest.get("command")
    accelerators = hardware.get("accelerators")
    cards = ", ".join(map(str, accelerators)) if isinstance(accelerators, list) and accelerators else "no accelerator"
    told = {
        "starts from": stage.recipe.get("start"),
        "command": " ".join(map(str, command)) if isinstance(command, list) else None,
        "commit": manifest.get("commit"),
        "machine": f"{hardware.get('machine')}, {hardware.get('cores')} cores, {hardware.get('memory_gib')} GiB, {cards}"
        if hardware
        else None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version) or None,
        "digests": ", ".join(f"{name} {digest}" for name, digest in pinned.items()) or None,
    }
    return [(name, str(value)) for name, value in told.items() if value]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.1f} min" if minutes < 100 else f"{hours:.1f} h"


def energy_text(kwh: float) -> str:
    """An energy in a unit that suits it."""
    size = abs(kwh)
    return f"{kwh / 1000:,.2f} MWh" if size >= 1000 else f"{kwh:.2f} kWh" if size >= 1 else f"{1000 * kwh:.3g} Wh"


def share(count: int, of: int) -> str:
    """A count with its share."""
    return f"{count:,} ({100 * count / of:.2g} %)" if count and of else "none"
