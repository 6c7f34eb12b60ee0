"""The result of an evaluation for people and for programs: tables, a chart, and the content of results.json."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tulu.files import finite
from tulu.intervals import Interval
from tulu.reward_models.bias import FORMS, Bias
from tulu.reward_models.bootstrap import Intervals
from tulu.reward_models.ensemble import Ensemble
from tulu.reward_models.published import TARGETS
from tulu.reward_models.sections import FINAL_WEIGHTS, V2_SUBSETS, Data, Summary


@dataclass(frozen=True)
class Report:
    """Everything that an evaluation reports about one set of scores."""

    title: str
    summary: Summary
    intervals: Intervals
    baselines: Mapping[str, Summary] = field(default_factory=dict)
    biases: Mapping[str, Mapping[str, Bias]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the scores depend on: model, kind, hash of the template, lengths."""
    notes: Sequence[str] = ()
    """What a reader must know: how many rows were cut, how many verdicts could not be read."""
    counts: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The content of results.json; undefined figures are null."""
        content: dict[str, Any] = finite(
            {
                **self.summary.as_json(),
                "intervals": {
                    "subsets": self.intervals.subsets,
                    "sections": self.intervals.sections,
                    "score": self.intervals.score,
                },
                "baselines": {name: summary.as_json() for name, summary in self.baselines.items()},
                "biases": {name: {form: asdict(bias) for form, bias in forms.items()} for name, forms in self.biases.items()},
                "counts": dict(self.counts),
                "notes": list(self.notes),
                "settings": dict(self.settings),
            }
        )
        return content


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
    score = report.summary.score
    console.print(f"[bold]Score {_percent(score)}[/bold] {_span(report.intervals.score)}   {_counted(report.summary)}")
    for note in report.notes:
        console.print(f"[yellow]{note}[/yellow]", highlight=False)
    if compare:
        console.print(compare_table(report.title, report.summary))


def _subsets_table(report: Report) -> Table:
    table = Table(title=report.title, title_justify="left", box=box.SIMPLE)
    table.add_column("subset", no_wrap=True)
    forms = [f"picks {form}" for form in FORMS] if report.biases else []
    for name in ("items", "accuracy", "95 %", *report.baselines, *forms):
        table.add_column(name, justify="right")
    for name, subset in report.summary.subsets.items():
        cells = [_percent(baseline.subsets[name].accuracy) for baseline in report.baselines.values()]
        if report.biases:
            cells += [_bias(report.biases.get(name, {}).get(form)) for form in FORMS]
        table.add_row(name, str(subset.count), _percent(subset.accuracy), _span(report.intervals.subsets.get(name)), *cells)
    if report.biases:
        table.caption = "picks: how often the model prefers the longer or more formatted answer (and how often that one is right)"
    return table


def _sections_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("section", no_wrap=True)
    for name in ("score", "95 %", *report.baselines):
        table.add_column(name, justify="right")
    for name, value in report.summary.sections.items():
        cells = [_percent(baseline.sections[name]) for baseline in report.baselines.values()]
        table.add_row(name, _percent(value), _span(report.intervals.sections.get(name)), *cells)
    table.caption = _absent(FINAL_WEIGHTS, report.summary.sections)
    return table


def _absent(names: Iterable[str], present: Container[str]) -> str | None:
    """A note on the parts that a score does not count because it has no rows of them."""
    absent = [name for name in names if name not in present]
    return f"no rows of {', '.join(absent)}: the score is the mean of the others" if absent else None


def compare_table(title: str, summary: Summary) -> Table:
    """The published figures and this result's, best first."""
    names = compare_sections(summary.data)
    table = Table(title=f"RewardBench {summary.data}: published, and this one", title_justify="left", box=box.SIMPLE)
    table.add_column("model", no_wrap=True)
    table.add_column("kind")
    for name in ("score", *names):
        table.add_column(name, justify="right")
    score_of_this = summary.score if summary.score is not None else -1.0
    rows = [(target.score, target.model, target.kind, target.sections) for target in TARGETS[summary.data]]
    figures = tuple(None if name not in summary.sections else 100 * summary.sections[name] for name in names)
    rows.append((100 * score_of_this, f"[bold]{title}[/bold]", "this", figures))
    for score, model, kind, sections in sorted(rows, key=lambda row: row[0], reverse=True):
        cells = ["–" if value is None else f"{value:.2f}" for value in sections]
        table.add_row(model, kind, f"{score:.2f}", *cells)
    table.caption = "A gap of a point is no gap: reruns of published models differ by up to 0.94 points a subset."
    return table


def compare_sections(data: Data) -> tuple[str, ...]:
    """The columns of a published table; none for free data, of which nothing is published."""
    return {"v1": tuple(FINAL_WEIGHTS), "v2": V2_SUBSETS, "free": ()}[data]


def print_ensemble(ensemble: Ensemble, console: Console) -> None:
    """Print single models and combinations on the reporting half, and the gain of the learned combination."""
    title = f"{len(ensemble.names)} models, on {ensemble.reported_on} items that no weight has seen"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("model", overflow="fold")
    for name in ("weight", "score", *ensemble.singles[ensemble.best].sections):
        table.add_column(name, justify="right")
    for name, weight in zip(ensemble.names, ensemble.weights, strict=True):
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


def _counted(summary: Summary) -> str:
    items = sum(subset.count for subset in summary.subsets.values())
    return f"{items} items, {summary.ties} exact ties, {summary.missing} with missing scores"
