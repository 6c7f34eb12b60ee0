"""`tulu rewardbench --scores A --ensemble B --ensemble C`: what several models are worth together."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tulu.errors import DataError
from tulu.reward_models.ensemble import Ensemble, combine
from tulu.reward_models.score_file import read_scores
from tulu.reward_models.sections import Data, Summary


def combine_files(paths: list[Path], data: Data, seed: int) -> Ensemble:
    """The ensemble of scores files, each a model by its path; DataError for a file named twice."""
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        raise DataError(f"--ensemble: a file is named twice: {', '.join(names)}")
    return combine({str(path): read_scores(path, data) for path in paths}, data, seed)


def as_json(found: Ensemble) -> dict[str, Any]:
    """What `--json` prints for an ensemble."""
    plain = asdict(found)
    return {
        **{key: plain[key] for key in ("best", "gain", "gain_interval", "learned_on", "reported_on")},
        "weights": dict(zip(found.names, found.weights, strict=True)),
        "combined": {name: summary.as_json() for name, summary in found.combined.items()},
        "singles": {name: summary.as_json() for name, summary in found.singles.items()},
    }


def print_ensemble(found: Ensemble, console: Console) -> None:
    """Single models and combinations on the reporting half, and the gain of the learned one."""
    table = Table(title=f"{len(found.names)} models, on {found.reported_on} items that no weight has seen", title_justify="left")
    table.box = box.SIMPLE
    table.add_column("model", overflow="fold")
    for name in ("weight", "score", *found.singles[found.best].sections):
        table.add_column(name, justify="right")
    for name, weight in zip(found.names, found.weights, strict=True):
        table.add_row(name, f"{weight:.3f}", *_figures(found.singles[name]))
    table.add_section()
    for name, summary in found.combined.items():
        table.add_row(f"ensemble: {name}", "", *_figures(summary), style="bold" if name == "learned" else "")
    console.print(table)
    low, high = (100 * bound for bound in found.gain_interval)
    console.print(
        f"learned ensemble over {found.best}, the best single one on the {found.learned_on} items it was learned on: "
        f"{100 * found.gain:+.2f} points of mean credit, 95 % {low:+.2f} … {high:+.2f}",
        highlight=False,
    )


def _figures(summary: Summary) -> list[str]:
    values = [summary.score, *summary.sections.values()]
    return ["–" if value is None else f"{100 * value:.2f}" for value in values]
