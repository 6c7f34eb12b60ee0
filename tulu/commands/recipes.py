"""What `tulu recipes` prints: the built-in recipes, every field of one with its origin, and what differs between two."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu.config.load import built_in, load_recipe
from tulu.config.provenance import Origin, origins
from tulu.config.stages import STAGES
from tulu.config.yaml_text import read_yaml

_COLUMNS = 160
"""Width of the output where it goes to no terminal."""
_STYLES = {"released": "green", "ours": "cyan", "unknown": "bold red", "command line": "magenta", "recipe": "", "default": "dim"}
_ABSENT = "—"

Fields = Mapping[str, tuple[Any, Origin]]
"""The value and the origin of every field of a recipe, by its key."""


def show_recipes() -> None:
    """Print a line for each built-in recipe: its name, its stages, and the first sentence of its comment."""
    table = Table("recipe", "stages", "about", box=None, pad_edge=False)
    for path in built_in():
        comments = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
        about = next(line for line in comments if line and not line.startswith("yaml-language-server"))
        recipe = read_yaml(path).value
        table.add_row(path.stem, " ".join(stage for stage in STAGES if stage in recipe), about)
    Console().print(table)


def show_recipe(name: str, overrides: Sequence[str] = ()) -> None:
    """Print every field of a recipe with its value, where that comes from, and the source."""
    table = _table("field", "value", "status", "source")
    section = ""
    for key, (value, origin) in fields_of(name, overrides).items():
        if (head := key.partition(".")[0] if "." in key else "") != section:
            table.add_section()
            section = head
        table.add_row(key, as_text(value), Text(origin.status, style=_STYLES[origin.status]), origin.source)
    _console().print(table)


def show_difference(name: str, other: str, overrides: Sequence[str] = ()) -> None:
    """Print the fields whose values differ between two recipes, each value with its origin; the overrides hold in both."""
    first, second = fields_of(name, overrides), fields_of(other, overrides)
    table = _table("field", name, other)
    for key, one, another in differences(first, second):
        table.add_row(key, _with_origin(one), _with_origin(another))
    if not table.row_count:
        _console().print(f"{name} and {other} have the same value in every field")
        return
    _console().print(table)


def fields_of(name: str, overrides: Sequence[str] = ()) -> Fields:
    """The fields of a recipe in order; sections that it has not are left out. Raises RecipeError where it cannot be read."""
    recipe = load_recipe(name, overrides, processes=1)
    values = recipe.model_dump(mode="json")
    found = {key: (_at(values, key), origin) for key, origin in origins(name, recipe, overrides).items()}
    return {key: field for key, field in found.items() if not (key in STAGES and field[0] is None)}


def differences(first: Fields, second: Fields) -> Iterator[tuple[str, tuple[Any, Origin] | None, tuple[Any, Origin] | None]]:
    """The fields with other values, None where there is none; a stage that only one recipe has is one entry."""
    sections = [[section for key in fields if (section := _section(fields, key))] for fields in (first, second)]
    alone = dict.fromkeys(
        section for section in [*sections[0], *sections[1]] if (section in sections[0]) != (section in sections[1])
    )
    for key in dict.fromkeys([*first, *second]):
        one, another = first.get(key), second.get(key)
        in_one = (_section(first, key) if key in first else _section(second, key)) in alone
        if not in_one and (one is None or another is None or one[0] != another[0]):
            yield key, one, another
    for section in alone:
        told = [(f"{count} fields", Origin("recipe")) if (count := part.count(section)) else None for part in sections]
        yield section, told[0], told[1]


def _section(fields: Fields, key: str) -> str:
    """The section of a stage that a key belongs to, such as rlvr, or rlvr.math where there are several; empty for others."""
    stage, _, rest = key.partition(".")
    if stage not in STAGES or not rest:
        return ""
    named = f"{stage}.{rest.partition('.')[0]}"
    return named if f"{named}.name" in fields else stage


def as_text(value: Any) -> str:
    """A value in a cell: a line for each data set of a mix and each section of a list; all else as YAML writes it."""
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return "\n".join(_source(entry) if "fraction" in entry else _entries(entry) for entry in value)
    if isinstance(value, dict) and value:
        return _entries(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(as_text, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _entries(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {as_text(each)}" for key, each in value.items() if each is not None)


def _source(entry: Mapping[str, Any]) -> str:
    """A data set and how much of it, with what is not said of every data set."""
    fraction = entry["fraction"]
    amount = f"{entry['count']:,} rows" if fraction is None else "all rows" if fraction == 1 else f"{fraction:g} of its rows"
    others = {key: value for key, value in entry.items() if key not in ("name", "fraction", "count") and value is not None}
    told = [f"{key} {value}" for key, value in others.items() if (key, value) != ("split", "train")]
    return ", ".join([f"{entry['name']}: {amount}", *told])


def _with_origin(field: tuple[Any, Origin] | None) -> Text:
    if field is None:
        return Text(_ABSENT, style="dim")
    value, origin = field
    return Text(as_text(value)) if origin == Origin("recipe") else Text(as_text(value)).append(f"\n{origin}", style="dim")


def _at(values: Any, key: str) -> Any:
    """The value at a key, in whose last part there may be dots; several stages of a kind go by their names."""
    if key in values:
        return values[key]
    head, _, rest = key.partition(".")
    if isinstance(values, list):
        return _at(next(stage for stage in values if stage["name"] == head), rest)
    return _at(values[head], rest)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    return table


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _COLUMNS, markup=False, emoji=False, highlight=False)
