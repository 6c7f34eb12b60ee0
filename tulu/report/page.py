"""The page: everything that was gathered of runs, as one HTML file that asks nobody for anything."""

import base64
import gzip
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tulu.errors import RecipeError
from tulu.files import finite
from tulu.progress import track
from tulu.report import sections
from tulu.report.curves import Panel, panels, series_of
from tulu.report.rollout_files import Damaged, Indexes, Version, rollout_files
from tulu.report.rollout_views import group_view, load_tokenizer, read_group, short
from tulu.report.runs import ReportedRun, ReportedStage, read_run
from tulu.report.sampling import SAMPLE, Census, Tally, count_again, draw_sample, take_census
from tulu.report.svg import chart

MOST_BYTES = 2_000_000
"""What a file stays under."""
HERE = Path(__file__).parent

Read = dict[tuple[Path, int], list[dict[str, Any]]]
"""Groups that were read and decoded, by file and number: they are asked for again with shorter texts for a smaller page."""


@dataclass(frozen=True)
class Level:
    """How much of everything a file holds; where it grows too large, the next level is tried."""

    points: int
    """Points of all curves together, as far as each may have at least eight."""
    rollouts: int
    text: int
    """Characters of a prompt or completion of the rollouts."""
    packed: int
    """Bytes of the rollouts, compressed."""
    rows: int
    row_text: int


LEVELS = (
    Level(36_000, SAMPLE, 6_000, 1_000_000, 8, 1_600),
    Level(14_000, SAMPLE, 2_400, 900_000, 6, 1_200),
    Level(10_000, 700, 1_600, 700_000, 4, 900),
    Level(6_000, 400, 1_200, 500_000, 3, 600),
    Level(3_000, 200, 800, 300_000, 2, 400),
    Level(1_000, 60, 600, 100_000, 1, 300),
)


@dataclass
class Gathered:
    """The runs of a report and a census of the rollouts of each of their stages."""

    runs: list[ReportedRun]
    censuses: dict[tuple[int, str], Census] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """A name for each run; runs of one name are told apart by their folders."""
        plain = [run.name for run in self.runs]
        return [
            name if plain.count(name) == 1 else f"{name} ({run.folder.parent})"
            for name, run in zip(plain, self.runs, strict=True)
        ]

    @property
    def rollout_stages(self) -> list[tuple[int, ReportedStage, Census]]:
        """The stages that have rollouts, with the place of their run."""
        stages = [(place, stage) for place, run in enumerate(self.runs) for stage in run.stages]
        return [(place, stage, census) for place, stage in stages if (census := self.censuses.get((place, stage.name)))]


def gather(folders: Sequence[Path], indexes: Indexes, known: dict[Version, Tally] | None = None) -> Gathered:
    """Read the runs in these folders; with what is `known` of files of rollouts already, these are counted and not sampled."""
    gathered = Gathered([read_run(folder) for folder in folders])
    for place, run in enumerate(gathered.runs):
        for stage in run.stages:
            if files := rollout_files(stage.folder):
                census = take_census(files, indexes) if known is None else count_again(files, indexes, known)
                gathered.censuses[place, stage.name] = census
                for file, reason in census.damaged:
                    run.faults.add(file.path, f"cannot be read ({reason})")
    return gathered


def report_page(gathered: Gathered, indexes: Indexes) -> str:
    """The file. Raises RecipeError where so many runs do not fit one."""
    read: Read = {}
    for level in LEVELS:
        packed, groups = pack_rollouts(gathered, indexes, level, read)
        page = render(gathered, level, packed, groups)
        if len(page.encode()) < MOST_BYTES:
            return page
    raise RecipeError(f"{len(gathered.runs)} runs do not fit a report of {MOST_BYTES / 1e6:.0f} MB; name fewer")


def pack_rollouts(gathered: Gathered, indexes: Indexes, level: Level, read: Read) -> tuple[str, list[dict[str, Any]]]:
    """A sample of the rollouts as compressed text, and as it is."""
    stages = gathered.rollout_stages
    most, text = level.rollouts // max(1, len(stages)), level.text
    while stages:
        groups = [view for place, stage, census in stages for view in _views(place, stage, census, indexes, most, text, read)]
        packed = base64.b64encode(gzip.compress(_json(groups).encode(), mtime=0)).decode()
        if len(packed) <= level.packed or most < 2:
            return packed, groups
        # Shorter texts before fewer of them.
        most, text = (most, text // 2) if text > 800 else (most * 2 // 3, text)
    return "", []


def _views(
    place: int,
    stage: ReportedStage,
    census: Census,
    indexes: Indexes,
    most: int,
    text: int,
    read: Read,
) -> Iterator[dict[str, Any]]:
    """A sample of a stage's groups."""
    tokenizer = load_tokenizer(stage.folder)
    for drawn in track(draw_sample(census, most), f"report: groups of rollouts of {stage.name}"):
        key = (drawn.file.path, drawn.group)
        try:
            rows = read.get(key) or read.setdefault(key, read_group(drawn.file, indexes.of(drawn.file), drawn.group, drawn.count))
        except Damaged:
            # It was whole when the census was taken, and is named there the next time.
            continue
        yield {"run": place, "stage": stage.name, **group_view(drawn.file.step, drawn.group, rows, tokenizer, text)}


def render(
    gathered: Gathered,
    level: Level = LEVELS[0],
    packed: str = "",
    groups: Sequence[dict[str, Any]] = (),
    live: bool = False,
) -> str:
    """The page as HTML; a live one asks its server for rollouts in place of holding some."""
    charts, curves = _curves(gathered, level)
    script, style = _inlined("charts.js", "rollouts.js"), _inlined("report.css")
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; img-src data:; "
        f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}; base-uri 'none'; form-action 'none'"
    )
    text: str = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=" · ".join(gathered.names),
            live=live,
            written=time.strftime("%Y-%m-%d %H:%M %Z"),
            policy=policy,
            style=style,
            script=script,
            curves=_json(curves),
            charts=charts,
            packed=Markup(packed),
            sampled=sum(len(group["rows"]) for group in groups),
            cut=sum(bool(row["cut"]) for group in groups for row in group["rows"]),
            **_of_rollouts(gathered, live),
            **_of_runs(gathered, level),
        )
    )
    # Half a surrogate pair, which a row of JSON may hold, has no UTF-8; its escape is shown.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _of_rollouts(gathered: Gathered, live: bool) -> dict[str, Any]:
    """What the template says of rollouts, and the facts that the script reads."""
    names, stages = gathered.names, gathered.rollout_stages
    listed = [
        {"run": place, "stage": stage.name, "total": census.rollouts, "verifiers": sorted(census.by_verifier)}
        for place, stage, census in stages
    ]
    return {
        "facts": _json({"live": live, "runs": names, "stages": listed}),
        "total": sum(census.rollouts for _, _, census in stages),
        "with_rollouts": bool(stages),
        "faults": [(names[place], sections.faults(stage, census)) for place, stage, census in stages],
    }


def _of_runs(gathered: Gathered, level: Level) -> dict[str, Any]:
    """What the template says of runs and stages."""
    runs = list(enumerate(zip(gathered.names, gathered.runs, strict=True)))
    return {
        "names": gathered.names,
        "runs": runs,
        "chains": [sections.chain(run, place) for place, (_, run) in runs],
        "answers": [found for run in gathered.runs[:1] for found in sections.answers(run)],
        "looks": [(place, stage, found) for place, (_, run) in runs for stage in run.stages if (found := sections.looks(stage))],
        "samples": [
            (place, stage, rows)
            for place, (_, run) in runs
            for stage in run.stages
            if (rows := sections.samples(stage, level.rows, level.row_text))
        ],
        "benches": [
            (name if len(runs) > 1 else "", sections.rewardbench(found)) for _, (name, run) in runs for found in run.rewardbench
        ],
        "unjudged": [(name, stage, told) for _, (name, run) in runs for stage, told in sections.evaluation_faults(run.stages)],
        "energies": [(name, taken) for _, (name, run) in runs if (taken := sections.energy(run))["rows"]],
        "provenance": [(name, stage.name, sections.provenance(stage)) for _, (name, run) in runs for stage in run.stages],
        "damage": [(name, line) for _, (name, run) in runs for line in run.faults.lines],
    }


def _curves(gathered: Gathered, level: Level) -> tuple[list[tuple[str, list[tuple[Panel, Markup]]]], dict[str, Any]]:
    """The charts of each stage, and their numbers for the script."""
    stages: dict[str, list[tuple[int, ReportedStage]]] = {}
    for place, run in enumerate(gathered.runs):
        for stage in run.stages:
            stages.setdefault(stage.name, []).append((place, stage))
    metrics = sum(len(stage.metrics[-1]) for members in stages.values() for _, stage in members if stage.metrics)
    points = min(400, max(8, level.points // max(1, metrics)))
    several = len(gathered.runs) > 1
    drawn: list[tuple[str, list[tuple[Panel, Markup]]]] = []
    numbers: dict[str, Any] = {}
    for name, members in stages.items():
        found = [one for place, stage in members for one in series_of(place, stage.metrics, points).values()]
        listed = panels(found, together=not several)
        charts = []
        for panel in listed:
            key = f"k{len(numbers)}"
            charts.append((panel, chart(panel, key, by_run=several)))
            numbers[key] = [
                {
                    "run": one.run,
                    "label": one.label,
                    "x": [int(step) if step == int(step) else step for step in one.steps],
                    "y": [short(value) for value in one.values],
                }
                for one in panel.series
            ]
        if charts:
            drawn.append((name, charts))
    return drawn, numbers


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["short"] = lambda value: f"{value:.4g}".replace("-", "−")
    return environment


@cache
def _inlined(*names: str) -> Markup:
    """Files of the package that stand in the page as they are."""
    return Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in names))


def _digest(text: str) -> str:
    """How a content policy names what may run: the script and the style of this package, and nothing that a run wrote."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> Markup:
    """JSON that may stand in a script element: no text of a run can end the element or begin another."""
    text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    escapes: dict[str, str | int | None] = {
        "<": "\\u003c",
        ">": "\\u003e",
        "&": "\\u0026",
        "\u2028": "\\u2028",
        "\u2029": "\\u2029",
    }
    return Markup(text.translate(str.maketrans(escapes)))
