"""The table of recipes in docs/recipes.md: every recipe has a row, and it names what was never published."""

import re
from pathlib import Path

import pytest

from tulu.config.load import built_in, load_recipe
from tulu.config.recipe_stages import stages_in
from tulu.config.unknown import open_fields

DOCS = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


def rows() -> dict[str, list[str]]:
    """The cells of every row of the table by the name of its recipe; a row may be that of several."""
    table = DOCS.read_text(encoding="utf-8").partition("## The released recipes")[2].partition("## ")[0]
    found: dict[str, list[str]] = {}
    for line in (line for line in table.splitlines() if line.startswith("| `")):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        first, *others = re.findall(r"`([^`]+)`", cells[0])
        stem = first.rpartition("-")[0]
        found |= dict.fromkeys((first, *(stem + other for other in others)), cells)
    return found


def test_every_recipe_has_a_row_and_every_row_a_recipe() -> None:
    assert set(rows()) == {path.stem for path in built_in()}


@pytest.mark.parametrize("name", [path.stem for path in built_in()])
def test_a_row_names_the_stages_and_what_was_never_published(name: str) -> None:
    recipe, (_, _, chain, _, gaps) = load_recipe(name, processes=1), rows()[name]
    for stage in {stage.row.name for stage in stages_in(dict(recipe)) if stage.row.makes_folder}:
        assert stage.lower() in chain.lower()
    named = set(re.findall(r"`(\w+\.[\w.]+)`", gaps))
    assert named <= set(open_fields(recipe)), "the row names a field that is not unknown"
    for field in open_fields(recipe):
        section, _, key = field.rpartition(".")
        assert f"`{field}`" in gaps or f"`{key}`" in gaps or f"all of {section.upper()}" in gaps, field
