"""`tulu rewardbench`: how good a reward model is, by RewardBench 1, RewardBench 2 or one's own pairs.

An evaluation goes from model and data to results.json and resumes at every chunk of items. Nothing heavy is imported before a
model is scored.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from tulu.config.locate import model_label
from tulu.config.lock import only_user
from tulu.errors import DataError, RecipeError
from tulu.files import json_text, write_atomic
from tulu.progress import Progress
from tulu.reward_models.benchmarks import Loaded, load
from tulu.reward_models.bias import baselines, biases
from tulu.reward_models.bootstrap import bootstrap
from tulu.reward_models.ensemble import combine
from tulu.reward_models.items import Scored
from tulu.reward_models.kinds import check_options
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.report import Report, draw_chart, make_console, print_ensemble, print_report
from tulu.reward_models.score_file import ScoreStore, check_folder, read_scores, writing
from tulu.reward_models.sections import Data, summarize
from tulu.train.manifest import environment

if TYPE_CHECKING:
    from tulu.reward_models.scorers import Scorer

log = logging.getLogger("tulu")

CHUNK = 64
"""Items scored between two writes, which is what a killed evaluation may lose."""


def run(model: str | None, data: str, scores: Path | None, options: RewardBenchOptions) -> Path | None:
    """Evaluate a model, or aggregate a file of scores; returns the folder of the result (None for a file of scores)."""
    if scores is not None:
        if model is not None:
            raise RecipeError(f"--scores aggregates scores made elsewhere; leave out the model {model!r}, or leave out --scores")
        aggregate(scores, data, options)
        return None
    if model is None:
        raise RecipeError("give a model (a folder or a hub name), or --scores FILE to aggregate scores made elsewhere")
    if options.ensemble:
        raise RecipeError("--ensemble combines scores files: give the first with --scores FILE, the others with --ensemble FILE")
    return evaluate(model, data, options)


def evaluate(model: str, data: str, options: RewardBenchOptions) -> Path:
    """Score `data` with `model`, write the folder of the result and print it; returns the folder.

    Raises InUseError if another command is at work in the folder.
    """
    check_options(model, options)
    loaded = load(data, options.limit)
    if options.compare and loaded.data == "free":
        raise RecipeError("--compare: nothing is published for one's own data; use it with RewardBench's")
    folder = options.out or Path("runs", "rewardbench", model_label(model), loaded.name)
    check_folder(folder)
    with only_user(folder, inside=True):
        return _evaluate(model, loaded, folder, options)


def _evaluate(model: str, loaded: Loaded, folder: Path, options: RewardBenchOptions) -> Path:
    # Seconds of imports that --scores does not need.
    from tulu.reward_models.choose_scorer import load_scorer
    from tulu.train.measured import measured

    scorer = load_scorer(model, loaded.data, options)
    settings = {"model": model, "data": loaded.data, "items": len(loaded.items), "digest": loaded.digest, **scorer.settings}
    store = ScoreStore(folder, loaded.data, settings, options.fresh)
    try:
        with measured(folder, options.fresh) as meter:
            seconds = score_pending(scorer, loaded, store)
    finally:
        scorer.close()
    report = make_report(model, loaded, store, settings, seconds, options)
    with writing(f"{folder}: the result", "all scores are kept: make room and run it again"):
        store.write_parquet()
        write_atomic(
            folder / "results.json", json_text({**report.as_json(), "energy": meter.energy, "environment": environment()})
        )
        draw_chart(report, folder / "chart.png")
    if options.json_output:
        print(json_text(asdict(report.summary)))
    else:
        console = make_console()
        print_report(report, console, options.compare)
        console.print(f"[dim]{folder}: results.json, scores.jsonl, scores.parquet, chart.png[/dim]", highlight=False)
    return folder


def score_pending(scorer: "Scorer", loaded: Loaded, store: ScoreStore) -> float:
    """Score what the store does not hold yet; returns the seconds that took."""
    pending = [index for index in range(len(loaded.items)) if index not in store.rows]
    if store.rows and pending:
        log.info("%s holds %d items already; scoring the other %d", store.log.path, len(store.rows), len(pending))
    started = time.monotonic()
    with Progress(f"scoring {loaded.name}", len(loaded.items), len(store.rows), brief=True) as progress:
        for start in range(0, len(pending), CHUNK):
            chunk = pending[start : start + CHUNK]
            store.append(dict(zip(chunk, scorer.score([loaded.items[index] for index in chunk]), strict=True)))
            progress.update(len(store.rows))
    return time.monotonic() - started if pending else 0.0


def make_report(
    model: str, loaded: Loaded, store: ScoreStore, settings: dict[str, Any], seconds: float, options: RewardBenchOptions
) -> Report:
    """Figures, intervals, baselines, biases and notes of the scores in the store."""
    scored = store.in_order()
    counts = count(scored)
    counts["seconds"] = round(seconds, 3)
    return Report(
        title=f"{model_label(model)} on {loaded.name}",
        summary=summarize(scored, loaded.data),
        intervals=bootstrap(scored, loaded.data, options.seed),
        baselines=baselines(loaded.items, loaded.data),
        biases=biases(loaded.items, scored),
        counts=counts,
        notes=write_notes(scored, counts),
        settings={**settings, "seed": options.seed, "row_tokens": options.row_tokens},
    )


def count(scored: Sequence[Scored]) -> dict[str, Any]:
    """How much was read, cut, and answered by a judge, over all items."""
    details = [item.details for item in scored]
    return {
        "items": len(scored),
        "tokens": sum(sum(row.get("tokens", ())) for row in details),
        "prompt_cut": sum(any(row.get("cut", ())) for row in details),
        "answer_start_cut": sum(any(row.get("answer_cut", ())) for row in details),
        "judgements": sum(row.get("judgements", 0) for row in details),
        "unparsable": sum(row.get("unparsable", 0) for row in details),
    }


def write_notes(scored: Sequence[Scored], counts: dict[str, Any]) -> list[str]:
    """Sentences about what makes a figure worth less than it seems, each with the first items it concerns."""
    notes = []
    for key, part in (("cut", "the conversation"), ("answer_cut", "an answer")):
        if names := [item.where or item.id for item in scored if any(item.details.get(key, ()))]:
            listed = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
            notes.append(f"{len(names)} items lost the start of {part} to --max-length: {listed}")
    if counts["unparsable"]:
        notes.append(
            f"{counts['unparsable']} of {counts['judgements']} judgements could not be parsed and got the credit of a guess"
        )
    return notes


def aggregate(path: Path, data: str, options: RewardBenchOptions) -> None:
    """Print the figures of a scores file, or of the ensemble of several."""
    if data not in get_args(Data):
        raise RecipeError(f"--data {data}: with --scores it is v1, v2 or free (one's own subsets)")
    kind = cast(Data, data)
    given = {"--out": options.out is not None, "--limit": options.limit is not None, "--fresh": options.fresh}
    if idle := [name for name, is_given in given.items() if is_given]:
        raise RecipeError(
            f"{', '.join(idle)}: --scores reads the whole file and writes nothing; leave it out (--json > FILE keeps the figures)"
        )
    if options.compare and kind == "free":
        raise RecipeError("--compare: nothing is published for one's own data; use it with --data v1 or v2")
    if options.ensemble:
        names = [str(name) for name in (path, *options.ensemble)]
        if len(set(names)) < len(names):
            raise DataError(f"--ensemble: a file is named twice: {', '.join(names)}")
        ensemble = combine({name: read_scores(Path(name), kind) for name in names}, kind, options.seed)
        if options.json_output:
            print(json_text(asdict(ensemble)))
        else:
            print_ensemble(ensemble, make_console())
        return
    items = read_scores(path, kind)
    summary = summarize(items, kind)
    if options.json_output:
        print(json_text(asdict(summary)))
        return
    report = Report(str(path), summary, bootstrap(items, kind, options.seed))
    print_report(report, make_console(), options.compare)
