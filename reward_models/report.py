"""The result of an evaluation for people and for programs: tables, a chart, and the content of results.json."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Column, Table

from tulu.files import finite
from tulu.intervals import Interval
from tulu.reward_models.bias import FORMS, Bias
from tulu.reward_models.bootstrap import Intervals
from tulu.reward_models.ensemble import Ensemble
from tulu.reward_models.sections import FINAL_WEIGHTS, V2_SUBSETS, Data, Summary


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation reports about one set of scores."""

    title: str
    summary: Summary
    intervals: Intervals
    baselines: Mapping[str, Summary] = field(default_factory=dict)
    biases: Mapping[str, Mapping[str, Bias]] = field(default_factory=dict)
    counts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a reader must know: how many rows were cut, how many verdicts could not be read."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the scores depend on: model, kind, hash of the template, lengths."""

    def as_json(self) -> dict[str, Any]:
        """The content of results.json; undefined figures are null."""
        content = asdict(self)
        del content["title"]
        return dict(finite({**content.pop("summary"), **content}))


def make_console() -> Console:
    """A console on the terminal, or where there is none, one that is wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def print_report(report: Report, console: Console, compare: bool = False) -> None:
    """Print the tables, the score with its interval, and the notes."""
    console.print(_subsets_table(report))
    if report.summary.sections and report.summary.data != "v2":
        console.print(_sections_table(report))
    elif report.summary.data == "v2" and (note := _absent(V2_SUBSETS, report.summary.subsets)):
        console.print(f"[dim]{note}[/dim]", highlight=False)
    summary = report.summary
    items = sum(subset.count for subset in summary.subsets.values())
    console.print(
        f"[bold]Score {_percent(summary.score)}[/bold] {_span(report.intervals.score)}   "
        f"{items} items, {summary.ties} exact ties, {summary.missing} with missing scores"
    )
    for note in report.notes:
        console.print(f"[yellow]{note}[/yellow]", highlight=False)
    if compare:
        console.print(compare_table(report.title, summary))


def _table(*columns: Column | str, figures: Iterable[str], **options: Any) -> Table:
    """A table of the given columns, and of one for each of the figures."""
    return Table(*columns, *(Column(name, justify="right") for name in figures), title_justify="left", box=box.SIMPLE, **options)


def _subsets_table(report: Report) -> Table:
    forms = [f"picks {form}" for form in FORMS] if report.biases else []
    figures = ("items", "accuracy", "95 %", *report.baselines, *forms)
    table = _table(Column("subset", no_wrap=True), figures=figures, title=report.title)
    for name, subset in report.summary.subsets.items():
        cells = [_percent(baseline.subsets[name].accuracy) for baseline in report.baselines.values()]
        if report.biases:
            cells += [_bias(report.biases.get(name, {}).get(form)) for form in FORMS]
        table.add_row(name, str(subset.count), _percent(subset.accuracy), _span(report.intervals.subsets.get(name)), *cells)
    if report.biases:
        table.caption = "picks: how often the model prefers the longer or more formatted answer (and how often that one is right)"
    return table


def _sections_table(report: Report) -> Table:
    table = _table(Column("section", no_wrap=True), figures=("score", "95 %", *report.baselines))
    for name, value in report.summary.sections.items():
        cells = [_percent(baseline.sections[name]) for baseline in report.baselines.values()]
        table.add_row(name, _percent(value), _span(report.intervals.sections.get(name)), *cells)
    table.caption = _absent(FINAL_WEIGHTS, report.summary.sections)
    return table


def _absent(names: Iterable[str], present: Container[str]) -> str | None:
    """A note on the parts that a score does not count because it has no rows of them."""
    absent = [name for name in names if name not in present]
    return f"no rows of {', '.join(absent)}: the score is the mean of the others" if absent else None


def published(data: Data) -> dict[str, Any]:
    """The published figures of RewardBench 1 or 2: names of `sections`, and `models`, each [model, kind, score, *sections]."""
    figures: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))[data]
    return figures


def compare_table(title: str, summary: Summary) -> Table:
    """The published figures and this result's, best first."""
    sections, models = published(summary.data).values()
    score = -1.0 if summary.score is None else summary.score
    figures = [100 * summary.sections[name] if name in summary.sections else None for name in sections]
    models.append([f"[bold]{title}[/bold]", "this", 100 * score, *figures])
    heading = f"RewardBench {summary.data}: published, and this one"
    table = _table(Column("model", no_wrap=True), "kind", figures=("score", *sections), title=heading)
    for model, kind, *values in sorted(models, key=lambda row: row[2], reverse=True):
        table.add_row(model, kind, *("–" if value is None else f"{value:.2f}" for value in values))
    table.caption = "A gap of a point is no gap: reruns of published models differ by up to 0.94 points a subset."
    return table


def print_ensemble(ensemble: Ensemble, console: Console) -> None:
    """Print single models and combinations on the reporting half, and the gain of the learned combination."""
    title = f"{len(ensemble.weights)} models, on {ensemble.reported_on} items that no weight has seen"
    figures = ("weight", "score", *ensemble.singles[ensemble.best].sections)
    table = _table(Column("model", overflow="fold"), figures=figures, title=title)
    for name, weight in ensemble.weights.items():
        table.add_row(name, f"{weight:.3f}", *_score_and_sections(ensemble.singles[name]))
    table.add_section()
    for name, summary in ensemble.combined.items():
        style = "bold" if name == "learned" else ""
        table.add_row(f"ensemble: {name}", "", *_score_and_sections(summary), style=style)
    console.print(table)
    low, high = (100 * bound for bound in ensemble.gain_interval)
    console.print(
        f"learned ensemble over {ensemble.best}, the best single one on the {ensemble.learned_on} items it was learned on: "
        f"{100 * ensemble.gain:+.2f} points of mean credit, 95 % {low:+.2f} … {high:+.2f}",
        highlight=False,
    )


def draw_chart(report: Report, path: Path) -> None:
    """Write a PNG with the accuracy and interval of every subset beside its length baselines."""
    # matplotlib takes a third of a second to import. Its figure object needs no display.
    from matplotlib.figure import Figure

    names = [name for name, subset in report.summary.subsets.items() if subset.accuracy is not None]
    figure = Figure(figsize=(9, 1.2 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = list(range(len(names)))[::-1]
    values = [100 * (report.summary.subsets[name].accuracy or 0.0) for name in names]
    spans = [report.intervals.subsets[name] for name in names]
    errors = [
        [max(0.0, value - 100 * low) for value, (low, _) in zip(values, spans, strict=True)],
        [max(0.0, 100 * high - value) for value, (_, high) in zip(values, spans, strict=True)],
    ]
    axes.barh(rows, values, xerr=errors, color="#4c72b0", height=0.6, label=report.title, capsize=2)
    for (label, baseline), marker in zip(report.baselines.items(), "|xo", strict=False):
        points = [100 * (baseline.subsets[name].accuracy or 0.0) for name in names]
        axes.scatter(points, rows, marker=marker, color="black", zorder=3, s=28, label=label)
    axes.set_yticks(rows, [f"{name} ({report.summary.subsets[name].count})" for name in names])
    axes.set_xlim(0, 102)
    axes.set_xlabel("accuracy, %, with 95 % bootstrap interval")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16 if len(names) < 8 else -0.06), ncols=4, frameon=False, fontsize=8)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    partial.rename(path)


def _score_and_sections(summary: Summary) -> list[str]:
    return [_percent(value) for value in (summary.score, *summary.sections.values())]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _bias(bias: Bias | None) -> str:
    return "–" if bias is None else f"{100 * bias.preferred:.0f} ({100 * bias.right:.0f})"


def _span(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.1f} … {100 * interval[1]:.1f}"
