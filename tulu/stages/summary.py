"""What each stage of a run did: summary.json, a table, a few answers before and after, and a plot."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.config.job import START, stages_of
from tulu.config.schema import Evaluate, Recipe
from tulu.data.sources import local_files
from tulu.files import JsonLines, write_atomic
from tulu.train.manifest import read_manifest
from tulu.user_code import source_files
from tulu.verifiers.custom import is_custom
from tulu.verifiers.custom_function import own_file

SAMPLES = 3
"""Problems whose answers are shown before and after."""


@dataclass(frozen=True)
class StageSummary:
    """One stage's held-out accuracy, and the time and speed of its training."""

    stage: str
    accuracy: float
    ci95: tuple[float, float]
    seconds: float
    """Seconds of training, over all sessions."""
    tokens_per_second: float
    """Tokens of packed rows (in RLVR, of prompts and completions) per second of the steps."""


def is_current(results: Path, model: str | Path, settings: Evaluate) -> bool:
    """Whether the results in a folder were made with this model, a folder or a name on the hub, these settings and these rows.

    A file of the user's that holds the verifier, or that one imports, counts as the rows do.
    """
    file, config = results / "results.json", Path(model) / "config.json"
    if not file.exists() or (config.exists() and file.stat().st_mtime < config.stat().st_mtime):
        return False
    read = [row for source in settings.data or () for row in local_files(source)]
    if settings.verifier is not None and is_custom(settings.verifier):
        read += source_files(own_file(settings.verifier))
    if any(one.stat().st_mtime > file.stat().st_mtime for one in read):
        return False
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        made_with = content["settings"]
        if content.get("model", str(model)) != str(model):
            return False
        if "max_tokens" in settings.model_fields_set and content.get("answer_tokens", settings.max_tokens) != settings.max_tokens:
            return False
    except (OSError, ValueError, KeyError, TypeError):
        # A file that cannot be read is written again.
        return False
    return bool(made_with == settings.model_dump(mode="json"))


def summarise(recipe: Recipe, folder: Path, stages: list[str]) -> None:
    """Write and show what the stages did; without an evaluation in the recipe, show only the folder's name."""
    console = Console()
    rm_accuracy = read_manifest(folder / "rm").get("held_out_accuracy") if recipe.rm else None
    if recipe.evaluate is None:
        console.print(f"done: {folder}")
        return
    summaries = [stage_summary(folder, stage) for stage in stages]
    content = {"seed": recipe.seed, "rm_accuracy": rm_accuracy, "stages": [asdict(summary) for summary in summaries]}
    write_atomic(folder / "summary.json", json.dumps(content, indent=2) + "\n")
    show_answers(console, folder, stages)
    show_table(console, summaries, recipe.evaluate, rm_accuracy)
    plot(folder, summaries, [stage.name for stage in stages_of(recipe) if stage.row.name == "rlvr"])
    console.print(f"\n  {folder}/summary.json   {folder}/summary.png   models: {folder}/STAGE/model", highlight=False)


def stage_summary(folder: Path, stage: str) -> StageSummary:
    """Read the summary of a stage from its manifest, metrics and evaluation."""
    results = json.loads((folder / "evaluate" / stage / "results.json").read_text(encoding="utf-8"))
    seconds = read_manifest(folder / stage).get("seconds", 0.0)
    lines = read_lines(folder / stage / "metrics.jsonl")
    speed = sum(line["tokens"] for line in lines) / max(sum(line["seconds"] for line in lines), 1e-9)
    return StageSummary(stage, results["accuracy"], tuple(results["ci95"]), seconds, round(speed, 1))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file; none where there is no file."""
    return JsonLines(file).read(lambda row, _where: row)


def show_table(console: Console, summaries: list[StageSummary], settings: Evaluate, rm_accuracy: float | None) -> None:
    """Print each stage's accuracy with its interval, and its difference to the stage before."""
    table = Table(title=f"held-out accuracy on {settings.task}", title_justify="left")
    for name in ("stage", "accuracy", "95 % interval", "change", "seconds", "tokens/s"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    before: float | None = None
    for summary in summaries:
        change = "" if before is None else f"{100 * (summary.accuracy - before):+.1f}"
        low, high = summary.ci95
        interval = f"{100 * low:.1f} – {100 * high:.1f}"
        speed = (f"{summary.seconds:.0f}", f"{summary.tokens_per_second:,.0f}") if summary.stage != START else ()
        table.add_row(summary.stage, f"[bold]{100 * summary.accuracy:.1f} %", interval, change, *speed)
        before = summary.accuracy
    console.print(table)
    if rm_accuracy is not None:
        console.print(f"reward model: {100 * rm_accuracy:.1f} % of the held-out pairs ranked right", highlight=False)


def show_answers(console: Console, folder: Path, stages: list[str]) -> None:
    """Print the answers of every stage to the same few problems, first to those that only the last stage solves."""
    answers = {stage: read_lines(folder / "evaluate" / stage / "answers.jsonl") for stage in stages}
    first, last = answers[stages[0]], answers[stages[-1]]
    gained = [i for i, (a, b) in enumerate(zip(first, last, strict=True)) if (b["score"] or 0) > (a["score"] or 0)]
    chosen = (gained + [i for i in range(len(last)) if i not in gained])[:SAMPLES]
    for index in chosen:
        title = escape(last[index]["prompt"][:200])
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for stage in stages:
            answer = answers[stage][index]
            colour = "green" if answer["score"] else "red"
            table.add_row(stage, f"[{colour}]{escape(answer['completion'][:200].strip().replace(chr(10), '  '))}")
        console.print(table)


def plot(folder: Path, summaries: list[StageSummary], rlvr: list[str]) -> None:
    """Draw accuracy by stage with intervals, and the share of solved completions by step of the RLVR stages, into summary.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = {stage: lines for stage in rlvr if (lines := read_lines(folder / stage / "metrics.jsonl"))}
    figure, panels = pyplot.subplots(1, 2 if curves else 1, figsize=(10 if curves else 5, 3.6), squeeze=False)
    bars = panels[0][0]
    heights = [100 * summary.accuracy for summary in summaries]
    # Where all answers scored alike, a bootstrap's ends are the accuracy up to rounding, on either side of it.
    errors = [
        [max(0.0, 100 * (summary.accuracy - summary.ci95[0])) for summary in summaries],
        [max(0.0, 100 * (summary.ci95[1] - summary.accuracy)) for summary in summaries],
    ]
    bars.bar([summary.stage for summary in summaries], heights, yerr=errors, capsize=4, color="#4c72b0")
    for place, height in enumerate(heights):
        bars.annotate(f"{height:.1f}", (place, height), xytext=(5, 4), textcoords="offset points")
    bars.set(ylabel="held-out accuracy, %", ylim=(0, 105), title="after each stage")
    if curves:
        steps, done, colour = panels[0][1], 0, "#55a868" if len(curves) == 1 else None
        for stage, lines in curves.items():
            # One stage after the other, as they were trained.
            places = [done + line["step"] for line in lines]
            steps.plot(places, [100 * line["solved"] for line in lines], label=stage, color=colour)
            done = places[-1]
        if len(curves) > 1:
            steps.legend(frameon=False)
        steps.set(xlabel="RLVR step", ylabel="sampled completions solved, %", ylim=(0, 105), title="while it learns")
    for panel in panels[0]:
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    partial = folder / ".partial-summary.png"
    figure.savefig(partial, dpi=120)
    pyplot.close(figure)
    partial.rename(folder / "summary.png")
