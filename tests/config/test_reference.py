"""Every number of the reference's tables of released runs stands in the recipe of its model, and none stands there by mistake.

The tables are those of recipes.md of the shared reference, §2 to §6; reference_numbers.yaml has their numbers, so that nothing
here depends on where that file is, and reference_rows.py says which stage follows which row, and what is left out of it and why.
What every run has in common (§1) is in test_released.py and test_estimate.py; §7 to §10 tell of no run.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.config.reference_numbers import SECTIONS, Figures, numbers_anywhere, numbers_in, prose, table_rows
from tests.config.reference_rows import COLUMNS, LEFT_OUT, NO_RECIPE, NO_ROW, NOT_IN_THE_TABLE, NOT_OF_A_RUN, NOTES, ROWS
from tests.config.released_numbers import RELEASED
from tulu.config.job import stages_of
from tulu.config.load import find_recipe, load_recipe
from tulu.config.schema import Recipe
from tulu.config.unknown import open_fields

SHARED = Path(os.environ.get("TULU_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "reference" / "recipes.md"
AROUND = "around the table"
TABLES: dict[str, dict[str, Figures]] = yaml.safe_load((Path(__file__).parent / "reference_numbers.yaml").read_text("utf-8"))
PROSE: dict[str, list[float]] = {kind: TABLES[kind].pop(AROUND) for kind in SECTIONS}  # type: ignore[misc]
PLACES = [(name, place) for name, places in ROWS.items() for place in places]


def stage_of(place: str) -> str:
    """The stage of a place in ROWS: `ppo mixed` is rlvr.mixed."""
    kind, _, several = place.partition(" ")
    return ("rlvr" if kind in ("ppo", "grpo") else kind) + (f".{several}" if several else "")


def row_of(name: str, place: str) -> Figures:
    return TABLES[place.partition(" ")[0]][ROWS[name][place]]


@cache
def recipe_of(name: str) -> Recipe:
    return load_recipe(name, processes=1)


def section_of(name: str, stage: str) -> Any:
    return next(each.section for each in stages_of(recipe_of(name)) if each.key == stage)


def lines_of(name: str, stage: str) -> str:
    """What a recipe's file says of a stage: its section with all comments, and why fields of it are unknown."""
    key, _, several = stage.partition(".")
    text = find_recipe(name).read_text(encoding="utf-8")
    section = re.split(rf"^{key}:", text, flags=re.MULTILINE)[1].split("\n\n")[0]
    if several:
        section = section.split(f"\n  - name: {several} ")[1].split("\n  - name: ")[0]
    return "\n".join([section, *open_fields(recipe_of(name), [stage]).values()])


def missing(name: str, stage: str, numbers: Iterator[float]) -> set[float]:
    """The numbers that stand nowhere in what a recipe says of a stage; how many data sets it has is said by their list."""
    return set(numbers) - numbers_anywhere(lines_of(name, stage)) - {len(section_of(name, stage).data)}


@pytest.mark.skipif(not SHARED.is_file(), reason="the shared reference is absent: TULU_SHARED names the folder of reference/")
@pytest.mark.parametrize("kind", SECTIONS)
def test_the_numbers_here_are_those_of_the_shared_reference(kind: str) -> None:
    text = SHARED.read_text(encoding="utf-8")
    assert TABLES[kind] == table_rows(text, kind)
    assert PROSE[kind] == prose(text, kind)


def test_every_row_has_a_recipe_or_a_reason_and_every_stage_a_row() -> None:
    mapped = {(place.partition(" ")[0], ROWS[name][place]) for name, place in PLACES}
    assert {(kind, label) for kind, rows in TABLES.items() for label in rows} == mapped | set(NO_RECIPE)
    assert mapped.isdisjoint(NO_RECIPE)
    stages = {f"{name} {stage.key}" for name in RELEASED for stage in stages_of(recipe_of(name))}
    assert stages == {f"{name} {stage_of(place)}" for name, place in PLACES} | set(NO_ROW)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_every_number_of_the_row_stands_in_the_stage(name: str, place: str) -> None:
    numbers = (number for cell in row_of(name, place).values() for number in cell)
    assert missing(name, stage_of(place), numbers) == set(LEFT_OUT.get((name, place), ()))


@pytest.mark.parametrize("kind", ["sft", "dpo", "rm", "ppo"])
def test_what_is_said_around_a_table_holds_in_every_stage_of_it(kind: str) -> None:
    said = set(PROSE[kind]) - set(NOT_OF_A_RUN.get(kind, ()))
    assert set(NOT_OF_A_RUN.get(kind, ())) <= set(PROSE[kind])
    for name, place in PLACES:
        if place.partition(" ")[0] == kind:
            assert missing(name, stage_of(place), iter(said)) == set(), (name, place)


def test_what_is_noted_below_the_last_table_stands_in_the_stage_that_it_belongs_to() -> None:
    assert set(PROSE["grpo"]) == set(NOTES) | set(NOT_OF_A_RUN["grpo"])
    for number, (name, stage) in NOTES.items():
        assert missing(name, stage, iter([number])) == set(), (number, name)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_the_values_of_a_stage_stand_in_their_columns(name: str, place: str) -> None:
    kind, stage, row, recipe = place.partition(" ")[0], stage_of(place), row_of(name, place), recipe_of(name)
    if not row:
        assert {field.rpartition(".")[0] for field in open_fields(recipe)} >= {stage}, "an empty row was never published"
        return
    section = section_of(name, stage)
    for field, column in COLUMNS[kind].items():
        value = (getattr(section, "batch_tokens", None) if field == "batch" else None) or getattr(section, field)
        if (name, kind, field) in NOT_IN_THE_TABLE or f"{stage}.{field}" in open_fields(recipe) or value is None:
            continue
        assert value in row[column], f"{stage}.{field}: {column} has {row[column]}"


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("224 (7×32)", {224, 7, 32}),
        ('232 learners×8 = 1856 (29 nodes×8; docs text "640" is copy-paste)', {232, 8, 1856, 29, 640}),
        ("**sum** (docs/tulu3.md@5bcd3b25:49; flag deleted since)", set()),
        ("docs/olmo2.md@bb98dbcac^:50,82", set()),
        ("10,000,000 or 2M", {1e7, 2e6}),
        ("tulu-3-sft-mixture 1.0 and -0225, MathSub-30K 9000", {1.0, 9000}),
        ("yaml 6e-6; sweep 6e-6..8e-6, .875, seeds 3,4", {6e-6, 8e-6, 0.875, 3, 4}),
        ("no-EOS −10, 16×TP4", {-10, 16, 4}),
    ],
)
def test_what_counts_as_a_number(cell: str, numbers: set[float]) -> None:
    assert numbers_in(cell) == numbers
