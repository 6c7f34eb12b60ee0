"""One evaluation from model and data to results.json, resumable at every chunk of items."""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tulu.config.locate import model_label
from tulu.errors import CheckpointError, RecipeError
from tulu.files import write_atomic
from tulu.reward_models.benchmarks import Loaded, load
from tulu.reward_models.bias import biases
from tulu.reward_models.bootstrap import bootstrap
from tulu.reward_models.choose_scorer import make_scorer
from tulu.reward_models.items import baselines
from tulu.reward_models.report import Report, draw_chart, dumps, make_console, print_report
from tulu.reward_models.rewardbench import Options
from tulu.reward_models.scorers import Scorer
from tulu.reward_models.sections import summarize
from tulu.reward_models.store import ItemScore, ScoreStore, check_folder
from tulu.train.manifest import environment

log = logging.getLogger("tulu")

CHUNK = 64
"""Items scored between two writes; what a killed evaluation may lose."""


def evaluate(model: str, data: str, options: Options) -> Path:
    """Score `data` with `model`, write the folder of the result, print it; returns the folder."""
    loaded = load(data, options.limit)
    if options.compare and loaded.data == "free":
        raise RecipeError("--compare: nothing is published for one's own data; use it with RewardBench's")
    folder = options.out or Path("runs", "rewardbench", model_label(model), loaded.name)
    check_folder(folder)
    scorer = make_scorer(model, loaded, options)
    settings = {"model": model, "data": loaded.data, "items": len(loaded.items), "digest": loaded.digest, **scorer.settings}
    store = ScoreStore(folder, loaded.data, settings, options.fresh)
    console = make_console(stderr=options.json_output)
    try:
        seconds = score_pending(scorer, loaded, store, console)
    finally:
        scorer.close()
    report = make_report(model, loaded, store, settings, seconds, options)
    try:
        store.write_parquet()
        write_atomic(folder / "results.json", dumps({**report.as_json(), "environment": environment()}))
        draw_chart(report, folder / "chart.png")
    except OSError as error:
        raise CheckpointError(
            f"{folder}: the result cannot be written ({error.strerror or error}); all scores are kept: make room and run it again"
        ) from error
    if options.json_output:
        print(dumps(report.summary.as_json()))
    else:
        print_report(report, console, options.compare)
        console.print(f"[dim]{folder}: results.json, scores.jsonl, scores.parquet, chart.png[/dim]", highlight=False)
    return folder


def score_pending(scorer: Scorer, loaded: Loaded, store: ScoreStore, console: Console) -> float:
    """Score what the store does not hold yet; returns the seconds it took."""
    pending = [index for index in range(len(loaded.items)) if index not in store.rows]
    if store.rows and pending:
        log.info("%s holds %d items already; scoring the other %d", store.path, len(store.rows), len(pending))
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"scoring {loaded.name}", total=len(loaded.items), completed=len(store.rows))
        for chunk in _chunks(pending):
            items = [loaded.items[index] for index in chunk]
            found = scorer.score(items)
            store.append(
                [
                    ItemScore(index, item.scored(one.scores, one.credit), dict(one.details or {}))
                    for index, item, one in zip(chunk, items, found, strict=True)
                ]
            )
            progress.update(task, advance=len(chunk))
    return time.monotonic() - started if pending else 0.0


def make_report(
    model: str, loaded: Loaded, store: ScoreStore, settings: dict[str, Any], seconds: float, options: Options
) -> Report:
    """Figures, intervals, baselines and what a reader must know."""
    rows = store.in_order()
    scored = [row.scored for row in rows]
    counts = count(rows)
    counts["seconds"] = round(seconds, 3)
    return Report(
        title=f"{model_label(model)} on {loaded.name}",
        summary=summarize(scored, loaded.data),
        intervals=bootstrap(scored, loaded.data, options.seed),
        baselines=baselines(loaded.items, loaded.data),
        biases=biases(loaded.items, scored),
        settings={**settings, "seed": options.seed, "row_tokens": options.row_tokens},
        notes=notes(rows, counts),
        counts=counts,
    )


def count(rows: Sequence[ItemScore]) -> dict[str, Any]:
    """What was cut and what was not understood, over all items."""
    cut = [row for row in rows if any(row.details.get("cut", ()))]
    answer_cut = [row for row in rows if any(row.details.get("answer_cut", ()))]
    unparsable = sum(row.details.get("unparsable", 0) for row in rows)
    judgements = sum(row.details.get("judgements", 0) for row in rows)
    return {
        "items": len(rows),
        "tokens": sum(sum(row.details.get("tokens", ())) for row in rows),
        "prompt_cut": len(cut),
        "answer_start_cut": len(answer_cut),
        "judgements": judgements,
        "unparsable": unparsable,
    }


def notes(rows: Sequence[ItemScore], counts: dict[str, Any]) -> list[str]:
    """Sentences for what makes a figure less than it seems, each with the first items it concerns."""
    found = []
    for key, column, what in (
        ("prompt_cut", "cut", "lost the start of the conversation to --max-length"),
        ("answer_start_cut", "answer_cut", "lost the start of an answer to --max-length"),
    ):
        if counts[key]:
            named = [row.scored.where or row.scored.id for row in rows if any(row.details.get(column, ()))]
            found.append(f"{counts[key]} items {what}: {', '.join(named[:3])}{' …' if len(named) > 3 else ''}")
    if counts["unparsable"]:
        found.append(
            f"{counts['unparsable']} of {counts['judgements']} judgements could not be parsed and got the credit of a guess"
        )
    return found


def _chunks(pending: Sequence[int]) -> Iterator[list[int]]:
    for start in range(0, len(pending), CHUNK):
        yield list(pending[start : start + CHUNK])
