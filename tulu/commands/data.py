"""`tulu data`: what a recipe's mixes really hold, how rows are masked, and whether held-out questions are among them."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu.config.schema import Recipe, Rlvr, Source, TrainStage
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import pair_groups, sft_groups, text_groups
from tulu.data.decontaminate import Index, Match, index_of, matches
from tulu.data.formats import Kind
from tulu.data.mixing import sample_rows
from tulu.data.nested import origin
from tulu.data.problems import Problems, problems
from tulu.data.row_report import Report, SourceReport
from tulu.data.sources import load_rows
from tulu.data.token_cache import Groups
from tulu.errors import DataError, RecipeError
from tulu.model.load import load_tokenizer
from tulu.progress import track
from tulu.types import Group

KINDS: dict[str, Kind] = {"base": "text", "sft": "sft", "dpo": "pairs", "rm": "pairs", "rlvr": "rlvr"}
_SAMPLE = 1200
"""Most tokens of a shown sequence."""
_WIDTH = 120
"""Columns where the output is no terminal."""
_SHOWN = 20
"""Most matches that are listed one by one."""


@dataclass(frozen=True)
class Section:
    """One stage's mix, read."""

    stage: str
    report: Report
    lengths: Sequence[Any]
    """Tokens of each group or prompt, an array per source."""
    first: Group | None
    """A group to look at."""


def report(
    recipe: Recipe,
    decontaminate: bool = False,
    against: Sequence[str] = (),
    clean: Path | None = None,
    cache: Path = Path("runs/.cache"),
) -> None:
    """Print tables and a masked sample of every stage's mix; with `decontaminate` also what it gives away.

    Held-out questions are those of `against` (files or hub names), else of the recipe's evaluate section. `clean` is a folder
    that gets a copy of each source without the rows that give something away.
    """
    # Names of data sets hold what rich reads as markup and emoji (`sums:train:0`).
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, emoji=False, highlight=False)
    stages = stages_of(recipe)
    tokenizer = tokenizer_of(recipe)
    index = index_of(held_out(recipe, against)) if decontaminate or against or clean is not None else None
    for name, stage in stages.items():
        section = read(name, stage, tokenizer, cache)
        console.print(table(section))
        for line in section.report.lines()[1:]:
            console.print(Text(f"  {line}", style="yellow"))
        if section.first is not None:
            console.print(Text(f"\n{section.first.id}", style="bold"), sample(section.first, tokenizer), sep="\n")
        console.print()
    if index is not None:
        _decontaminate(console, stages, index, clean)


def stages_of(recipe: Recipe) -> dict[str, TrainStage]:
    """The sections that train, in the order they run."""
    sections = {name: getattr(recipe, name) for name in KINDS}
    return {name: stage for name, stage in sections.items() if stage is not None}


def tokenizer_of(recipe: Recipe) -> Any:
    """The tokenizer of the recipe's model, its template set."""
    if recipe.base is not None:
        tokenizer = make_byte_tokenizer()
        apply_template(tokenizer, recipe.template)
        return tokenizer
    starts = [recipe.model, *(stage.start or stage.released for stage in stages_of(recipe).values())]
    model = next((start for start in starts if start), None)
    if model is None:
        raise RecipeError("model: missing; name the model folder or hub model whose tokenizer reads the data")
    return load_tokenizer(model, recipe.template, recipe.revision if model == recipe.model else None)


def held_out(recipe: Recipe, against: Sequence[str]) -> tuple[Source, ...]:
    """The evaluation sets to look for."""
    if against:
        return tuple(Source(name=name, fraction=1.0) for name in against)
    if recipe.evaluate is not None and recipe.evaluate.data is not None:
        return tuple(recipe.evaluate.data)
    if recipe.evaluate is not None and recipe.evaluate.task == "sums":
        return (Source(name="sums:held_out", fraction=1.0),)
    raise RecipeError("evaluate.data: missing, so there is nothing to look for; set it, or name files with --against FILE")


def read(name: str, stage: TrainStage, tokenizer: Any, cache: Path) -> Section:
    """A stage's mix, as the stage itself will read it."""
    kind = KINDS[name]
    if isinstance(stage, Rlvr):
        found: Problems = problems(stage.data, tokenizer, stage.max_prompt, stage.verifier, stage.seed)
        ends = np.cumsum([source.used for source in found.report.sources])[:-1]
        lengths = np.split(np.array([len(each.prompt) for each in found]), ends)
        return Section(name, found.report, lengths, Group(found[0].prompt, (), found[0].id))
    groups: Groups
    if kind == "pairs":
        groups = pair_groups(stage.data, tokenizer, stage.max_length, cache, drop_long=name == "rm", seed=stage.seed)
    else:
        make = sft_groups if kind == "sft" else text_groups
        groups = make(stage.data, tokenizer, stage.max_length, cache, stage.seed)
    return Section(name, groups.report, [part.lengths for part in groups.parts], groups[0])


def table(section: Section) -> Table:
    """One line a source, and their total."""
    shown = Table(title=section.stage, title_justify="left", title_style="bold", box=None, pad_edge=False)
    shown.add_column("source", overflow="fold", min_width=20)
    for column in ("rows", "used", "dropped", "truncated", "tokens", "trained", "p5", "p50", "p95", "longest"):
        shown.add_column(column, justify="right", no_wrap=True)
    for source, lengths in zip(section.report.sources, section.lengths, strict=True):
        shown.add_row(*_cells(source, lengths))
    if len(section.report.sources) > 1:
        shown.add_row(*_cells(section.report, np.concatenate(list(section.lengths))), style="bold")
    return shown


def _cells(source: SourceReport | Report, lengths: Any) -> list[str]:
    dropped = sum(tally.count for tally in source.dropped.values())
    counts = [source.rows, source.used, dropped, source.truncated.count, source.tokens]
    share = f"{source.trained / source.tokens:.0%}" if source.trained else "-"
    spread = [*np.percentile(lengths, (5, 50, 95)), lengths.max()]
    name = source.name if isinstance(source, SourceReport) else "total"
    return [name, *(f"{count:,}" for count in counts), share, *(f"{length:,.0f}" for length in spread)]


def sample(group: Group, tokenizer: Any) -> Text:
    """A group as the model reads it: trained tokens green, the others dim."""
    shown = Text()
    _append(shown, group.prompt, [False] * len(group.prompt), tokenizer)
    names = ("chosen", "rejected") if len(group.completions) == 2 else ("",)
    for name, completion in zip(names, group.completions, strict=False):
        if name:
            shown.append(f"\n[{name}]\n", style="bold")
        _append(shown, completion.tokens, completion.trained, tokenizer)
    return shown


def _append(shown: Text, tokens: Sequence[int], trained: Sequence[bool], tokenizer: Any) -> None:
    pairs = list(zip(tokens, trained, strict=True))
    for flag, run in groupby(pairs[:_SAMPLE], key=lambda pair: pair[1]):
        shown.append(tokenizer.decode([token for token, _ in run]), style="green" if flag else "dim")
    if len(pairs) > _SAMPLE:
        shown.append(f" … {len(pairs) - _SAMPLE:,} further tokens", style="italic")


def _decontaminate(console: Console, stages: dict[str, TrainStage], index: Index, clean: Path | None) -> None:
    short = f"; {len(index.too_short)} are too short to tell" if index.too_short else ""
    console.print(f"Held-out questions: {len(index.ids):,} looked for{short}.")
    for name, stage in stages.items():
        for source in stage.data:
            rows = sample_rows(source, stage.seed, KINDS[name])
            found = matches(index, track(rows, f"searching {source.name}"), KINDS[name])
            questions, places = {match.problem for match in found}, {origin(match.row) for match in found}
            console.print(f"{name}, {source.name}: {len(questions):,} questions given away by {len(places):,} rows")
            _list(console, found)
            if clean is not None:
                target = write_clean(source, stage.seed, places, clean / name)
                console.print(f"  without them: {target}")


def _list(console: Console, found: Sequence[Match]) -> None:
    for match in sorted(found, key=lambda match: -match.share)[:_SHOWN]:
        console.print(Text(f"  {match.share:.0%} of {match.problem} in {match.row}", style="red"))
    if len(found) > _SHOWN:
        console.print(Text(f"  … and {len(found) - _SHOWN:,} more", style="red"))


def write_clean(source: Source, seed: int, places: set[str], folder: Path) -> Path:
    """A JSONL copy of a source without the rows of these ids; returns its path."""
    stem = source.name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].replace(":", "-")
    target = folder / f"{stem.removesuffix('.gz').rsplit('.', 1)[0]}.clean.jsonl"
    partial = target.with_name(f".partial-{target.name}-{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as handle:
            for row in load_rows(source, seed):
                if row.id not in places:
                    handle.write(json.dumps(row.columns, ensure_ascii=False, default=str) + "\n")
        partial.rename(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = error.strerror or error
        raise DataError(f"{target}: cannot be written: {reason}; free some space or name another folder") from None
    return target
