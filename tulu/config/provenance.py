"""Where the value of each field comes from: the release that a recipe follows, this project, the command line, or nobody.

The comments of a recipe are its sources. A field's own comment counts if it names one (a path or a card at a commit, a paper),
else it explains, and the comment behind the section's name is the source. A comment that begins with "ours" marks what the
release does not state; behind a section's name it holds for all that stands below, whatever sources the lines have: those say
where a stand-in was taken from. `unknown` lists what the release never published.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulu.config.load import find_recipe
from tulu.config.recipe_stages import Key, dotted, parts_of
from tulu.config.schema import Recipe
from tulu.config.stages import STAGES
from tulu.config.unknown import hit, open_fields
from tulu.config.yaml_text import comments_by_line, key_lines

Status = Literal["released", "ours", "unknown", "command line", "recipe", "default"]
_SOURCE = re.compile(r"@ [0-9a-f]{7,}|\bcard of \S+/|\barXiv \d|https?://")
"""What in a comment names a source: `docs/tulu3.md @ e6c3044a`, `card of allenai/…`, `arXiv 2506.01937`."""


@dataclass(frozen=True)
class Origin:
    """Where one field's value comes from."""

    status: Status
    """released: by the source; ours: chosen here; unknown: never published; recipe: written in a file that names no source;
    default: written nowhere."""
    source: str = ""
    """The source, the reason or the note; empty where the file has none."""

    def __str__(self) -> str:
        return f"{self.status}: {self.source}" if self.source else self.status


def origins(name: str, recipe: Recipe, overrides: Sequence[str] = ()) -> dict[str, Origin]:
    """The origin of every field of a recipe, by its key; `name` is its name or path, and it was loaded with `overrides`."""
    path = find_recipe(name)
    comments, lines = comments_by_line(path), key_lines(path)
    values = recipe.model_dump()
    changed = [dotted(parts_of(text.partition("=")[0]), values) for text in overrides]
    never_published = open_fields(recipe)
    named = {dotted(key, values): key for key in _fields(values)}
    return {name: _origin(name, key, comments, lines, changed, never_published) for name, key in named.items()}


def _origin(
    name: str,
    key: Key,
    comments: Mapping[int, str],
    lines: Mapping[Key, int],
    changed: Sequence[str],
    never_published: Mapping[str, str],
) -> Origin:
    if name in never_published:
        return Origin("unknown", never_published[name])
    if hit(name, changed):
        return Origin("command line")
    if key not in lines:
        return Origin("default")
    # A mix that is a list has its comment behind the key, or behind its first data set.
    own = comments.get(lines[key]) or comments.get(lines.get((*key, 0), 0), "")
    # A stage of a list with a comment of its own does not stand under that of the list.
    top = 2 if len(key) > 2 and isinstance(key[1], int) and lines.get(key[:2]) in comments else 1
    parents = [comments[lines[key[:n]]] for n in range(len(key) - 1, top - 1, -1) if lines.get(key[:n]) in comments]
    if own.startswith("ours"):
        return Origin("ours", _reason(own))
    if stand_in := next((comment for comment in parents if comment.startswith("ours")), None):
        return Origin("ours", ": ".join(filter(None, [_reason(stand_in), own])))
    if _SOURCE.search(own):
        return Origin("released", own)
    section = parents[0] if parents else ""
    return Origin("released", f"{section}: {own}" if own else section) if _SOURCE.search(section) else Origin("recipe", own)


def _reason(comment: str) -> str:
    """What a comment says behind its "ours"."""
    return comment.removeprefix("ours").strip(" :,;")


def _fields(values: Mapping[str, Any], above: Key = ()) -> list[Key]:
    """The keys of all fields below a section; a list, such as a mix of data, is one field, unless stages stand in it."""
    keys: list[Key] = []
    for name, value in values.items():
        here = (*above, name)
        if isinstance(value, Mapping) and value:
            keys += _fields(value, here)
        elif not above and name in STAGES and isinstance(value, list | tuple):
            keys += [key for place, section in enumerate(value) for key in _fields(section, (*here, place))]
        elif here != ("unknown",):
            keys.append(here)
    return keys
