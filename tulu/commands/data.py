"""What `tulu data` prints: what a recipe's mixes hold, how rows are masked, and whether held-out questions are in them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu.commands.files import writing
from tulu.config.job import stages_of, template_of
from tulu.config.recipe_stages import RecipeStage, model_named_by
from tulu.config.schema import Base, Recipe, Rlvr, Source, TrainStage, drops_long, labels_of
from tulu.config.tasks import TASKS
from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.data.datasets import load_groups
from tulu.data.decontaminate import Index, Match, index_of, matches
from tulu.data.masked import SHOWN_TOKENS, stretches
from tulu.data.mixing import sample_rows
from tulu.data.nested import origin
from tulu.data.problems import load_problems
from tulu.data.row_report import MixReport, RowReport
from tulu.data.sources import load_rows
from tulu.data.stability import prompt_break, turn_break
from tulu.errors import RecipeError
from tulu.files import json_lines, make_folder
from tulu.model.load import load_tokenizer
from tulu.progress import track
from tulu.types import Group

_COLUMNS = 120
"""Width of the output where it goes to no terminal."""
TRAINED = "⟦{}⟧"
"""How trained text is marked where there are no colours; a terminal of few characters shows [[ and ]]."""
_LISTED = 20
"""Most matches that are listed one by one."""


@dataclass(frozen=True)
class Mix:
    """One stage's data sets, read and tokenised."""

    stage: str
    report: MixReport
    lengths: Sequence[Any]
    """Tokens of each group or prompt: one array for each source."""
    first: Group
    """The first group, or the first prompt without completions."""


def report(
    recipe: Recipe,
    decontaminate: bool = False,
    against: Sequence[str] = (),
    clean: Path | None = None,
    cache: Path = Path("runs/.cache"),
) -> None:
    """Print tables and a masked sample of every stage's mix; with `decontaminate`, also the rows that hold a held-out question.

    Held-out questions are those of `against` (files or hub names), else of the recipe's evaluate section. `clean` is a folder
    that gets a copy of each source without those rows.
    """
    # Names of data sets contain what rich reads as markup and emoji (`sums:train:0`).
    console = Console(width=None if sys.stdout.isatty() else _COLUMNS, markup=False, emoji=False, highlight=False)
    # A pipe and NO_COLOR leave no colours.
    brackets = console.color_system is None or console.no_color
    stages = stages_of(recipe)
    index = index_of(held_out(recipe, against)) if decontaminate or against or clean is not None else None
    for stage in stages:
        section = stage.section
        tokenizer = load_recipe_tokenizer(recipe, section)
        mix = read_mix(stage, tokenizer, cache)
        console.print(mix_table(mix))
        if isinstance(section, Rlvr):
            console.print(f"  {mix.report.golds()}")
        for line in (*mix.report.lines()[1:], *_template_lines(section, tokenizer)):
            console.print(Text(f"  {line}", style="yellow"))
        marked = f" ({TRAINED.format('trained')})" if brackets else ""
        first = Text(f"\n{mix.first.id}{marked}", style="bold")
        console.print(first, masked_text(mix.first, tokenizer, brackets), sep="\n")
        console.print()
    if index is not None:
        _decontaminate(console, stages, index, clean)


def _template_lines(section: TrainStage, tokenizer: Any) -> list[str]:
    """What a chat template that is not prefix-stable writes in other words, where a stage reads conversations."""
    if isinstance(section, Base):
        return []
    breaks = {"is not prefix-stable": prompt_break(tokenizer), "rewrites earlier turns": turn_break(tokenizer)}
    return [f"the template {kind}: {text}" for kind, text in breaks.items() if text]


def load_recipe_tokenizer(recipe: Recipe, stage: TrainStage | None = None) -> Any:
    """The tokenizer of the recipe's model, with the chat template of a stage, or with the recipe's."""
    template, pinned = template_of(recipe, stage)
    if recipe.base is not None:
        tokenizer = make_byte_tokenizer()
        apply_template(tokenizer, template, pinned)
        return tokenizer
    stages = stages_of(recipe)
    starts = [recipe.model, *(model_named_by(each.section.start, stages) or each.section.released for each in stages)]
    model = next((start for start in starts if start), None)
    if model is None:
        raise RecipeError("model: missing; name the model folder or hub model whose tokenizer reads the data")
    revision = recipe.revision if model == recipe.model else None
    return load_tokenizer(model, template, revision, recipe.trust_remote_code, pinned)


def held_out(recipe: Recipe, against: Sequence[str]) -> tuple[Source, ...]:
    """The data sets whose questions are looked for. Raises RecipeError where there are none."""
    if against:
        return tuple(Source(name=name, fraction=1.0) for name in against)
    if recipe.evaluate is not None and recipe.evaluate.data is not None:
        return tuple(recipe.evaluate.data)
    if recipe.evaluate is not None and recipe.evaluate.task in TASKS:
        return (TASKS[recipe.evaluate.task].source,)
    raise RecipeError("evaluate.data: missing, so there is nothing to look for; set it, or name files with --against FILE")


def read_mix(stage: RecipeStage[TrainStage], tokenizer: Any, cache: Path) -> Mix:
    """A stage's mix, as the stage itself reads it."""
    section = stage.section
    if isinstance(section, Rlvr):
        read = load_problems(
            section.data,
            tokenizer,
            section.max_prompt,
            section.verifier,
            section.seed,
            bad_golds=section.bad_golds,
            mode=section.verifier_mode,
        )
        ends = np.cumsum([source.used for source in read.report.sources])[:-1]
        lengths = np.split(np.array([len(problem.prompt) for problem in read]), ends)
        return Mix(stage.key, read.report, lengths, Group(read[0].prompt, (), read[0].id))
    groups = load_groups(
        stage.row.rows,
        section.data,
        tokenizer,
        section.max_length,
        cache,
        seed=section.seed,
        drop_long=drops_long(stage.row, section),
        labels=labels_of(section),
    )
    return Mix(stage.key, groups.report, [part.lengths for part in groups.parts], groups[0])


def mix_table(mix: Mix) -> Table:
    """One line for each source, and their total."""
    shown = Table(title=mix.stage, title_justify="left", title_style="bold", box=None, pad_edge=False)
    shown.add_column("source", overflow="fold", min_width=20)
    for column in ("rows", "used", "dropped", "truncated", "tokens", "trained", "p5", "p50", "p95", "longest"):
        shown.add_column(column, justify="right", no_wrap=True)
    for source, lengths in zip(mix.report.sources, mix.lengths, strict=True):
        shown.add_row(*_cells(source, lengths))
    if len(mix.report.sources) > 1:
        shown.add_row(*_cells(mix.report, np.concatenate(list(mix.lengths))), style="bold")
    return shown


def _cells(source: RowReport, lengths: Any) -> list[str]:
    dropped = sum(tally.count for tally in source.dropped.values())
    counts = [source.rows, source.used, dropped, source.truncated.count, source.tokens]
    share = f"{source.trained / source.tokens:.0%}" if source.trained else "-"
    spread = [*np.percentile(lengths, (5, 50, 95)), lengths.max()]
    return [source.name, *(f"{count:,}" for count in counts), share, *(f"{length:,.0f}" for length in spread)]


def masked_text(group: Group, tokenizer: Any, brackets: bool = False) -> Text:
    """A group as the model reads it, with trained tokens in green and the others dim.

    `brackets` mark them as well, where there are no colours.
    """
    shown = Text()
    _append(shown, group.prompt, [False] * len(group.prompt), tokenizer, brackets)
    names = ("chosen", "rejected") if len(group.completions) == 2 else ("",)
    for name, completion in zip(names, group.completions, strict=False):
        if name:
            shown.append(f"\n[{name}]\n", style="bold")
        _append(shown, completion.tokens, completion.trained, tokenizer, brackets)
    return shown


def _append(shown: Text, tokens: Sequence[int], trained: Sequence[bool], tokenizer: Any, brackets: bool) -> None:
    for text, is_trained in stretches(tokens, trained, tokenizer):
        shown.append(TRAINED.format(text) if is_trained and brackets else text, style="green" if is_trained else "dim")
    if len(tokens) > SHOWN_TOKENS:
        shown.append(f" … {len(tokens) - SHOWN_TOKENS:,} further tokens", style="italic")


def _decontaminate(console: Console, stages: Sequence[RecipeStage[TrainStage]], index: Index, clean: Path | None) -> None:
    short = f"; {len(index.too_short)} are too short to tell" if index.too_short else ""
    console.print(f"Held-out questions: {len(index.ids):,} looked for{short}.")
    for stage in stages:
        kind, seed = stage.row.rows, stage.section.seed
        for source in stage.section.data:
            rows = sample_rows(source, seed, kind)
            leaks = matches(index, track(rows, f"searching {source.name}"), kind)
            questions, places = {match.problem for match in leaks}, {origin(match.row) for match in leaks}
            console.print(f"{stage.key}, {source.name}: {len(questions):,} questions given away by {len(places):,} rows")
            _list(console, leaks)
            if clean is not None:
                target = write_clean(source, seed, places, clean / stage.name)
                console.print(f"  without them: {target}")


def _list(console: Console, leaks: Sequence[Match]) -> None:
    for match in sorted(leaks, key=lambda match: -match.share)[:_LISTED]:
        console.print(Text(f"  {match.share:.0%} of {match.problem} in {match.row}", style="red"))
    if len(leaks) > _LISTED:
        console.print(Text(f"  … and {len(leaks) - _LISTED:,} more", style="red"))


def write_clean(source: Source, seed: int, places: set[str], folder: Path) -> Path:
    """Write a JSONL copy of a source without the rows that have these ids; returns its path."""
    stem = source.name.rstrip("/").replace("\\", "/").rsplit("/", 1)[-1].replace(":", "-").replace("*", "all")
    target = folder / f"{stem.removesuffix('.gz').rsplit('.', 1)[0]}.clean.jsonl"
    make_folder(folder)
    with writing(str(target)) as file:
        for row in load_rows(source, seed):
            if row.id not in places:
                file.write(json_lines([row.columns], default=str))
    return target
