"""What is wrong with a recipe, as one list for a person: line, key, value, problem and cure of each mistake."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tulu.config.parts import STAGE_NAME, TEMPLATE_HASH, Section, section_in
from tulu.config.recipe_stages import dotted
from tulu.config.schema import ONE, RUN_NAME, SEVERAL, Recipe
from tulu.errors import RecipeError, near_names, nearest

Path = tuple[str | int, ...]
Lines = Mapping[Path, str]
"""Where each key was written: `recipes/x.yaml:12` or `command line`."""
MISSING = object()
"""In place of a value that a message does not show."""


@dataclass(frozen=True)
class Mistake:
    """One problem: the key, its value, and what to do about it."""

    path: Path
    text: str
    value: Any = MISSING
    """What stands at the key; MISSING where nothing does, or where the text says it already."""
    where: str = ""
    """Where the mistake was made, if not where its key was written."""
    meant: tuple[Path, ...] = ()
    """The field that an unknown key is probably a slip for, if one is: that it is missing is no mistake of its own."""

    def line(self, lines: Lines, sections: Mapping[str, Any]) -> str:
        """`file:line: path: value: what is wrong; cure`; `sections` has what the recipe writes."""
        parts = [
            self.where or self.written(lines),
            dotted(self.path, sections),
            _short(self.value) if self.value is not MISSING else "",
            self.text,
        ]
        return ": ".join(part for part in parts if part)

    def written(self, lines: Lines) -> str:
        """Where its key was written, or the section that it belongs to."""
        return next((lines[self.path[:n]] for n in range(len(self.path), 0, -1) if self.path[:n] in lines), "")


def report(name: str, mistakes: Sequence[Mistake], lines: Lines, sections: Mapping[str, Any]) -> RecipeError:
    """All mistakes as one error, in the order of the file; `sections` has what the recipe writes."""
    unique = sorted(dict.fromkeys(mistake.line(lines, sections) for mistake in mistakes), key=_in_file_order)
    count = "1 problem" if len(unique) == 1 else f"{len(unique)} problems"
    return RecipeError(f"{name}: {count}\n" + "\n".join(f"  {line}" for line in unique))


def _in_file_order(line: str) -> tuple[str, int]:
    where = re.match(r"(.*?):(\d+): ", line)
    return (where[1], int(where[2])) if where else ("", 0)


def schema_mistakes(error: ValidationError, raw: Mapping[str, Any]) -> list[Mistake]:
    """Unknown keys, wrong types and missing fields, in the words of a recipe instead of pydantic's."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path_in_recipe(detail, raw), []).append(detail)
    mistakes = [_mistake(path, details, raw) for path, details in by_path.items() if not _follows(path, details, by_path)]
    meant = {path for mistake in mistakes for path in mistake.meant}
    return [mistake for mistake in mistakes if mistake.path not in meant]


def _follows(path: Path, details: Sequence[ErrorDetails], by_path: Mapping[Path, Any]) -> bool:
    """Whether a list is called too short only because its entries are wrong, which pydantic does not count."""
    below = any(len(other) > len(path) and other[: len(path)] == path for other in by_path)
    return below and all(detail["type"] == "too_short" for detail in details)


def section_at(path: Path) -> type[Section] | None:
    """The section class that has the keys under a path; None where the path leads to no section."""
    section: type[Section] = Recipe
    for part, following in zip(path, [*path[1:], ""], strict=False):
        if not isinstance(part, int):
            field = section.model_fields.get(part)
            nested = section_in(field.annotation, listed=isinstance(following, int)) if field else None
            if nested is None:
                return None
            section = nested
    return section


def _path_in_recipe(detail: ErrorDetails, raw: Any) -> Path:
    """pydantic's location of an error without the names of union members, which do not stand in the recipe."""
    path: list[str | int] = []
    here = raw
    for part in detail["loc"]:
        if part in (ONE, SEVERAL):
            continue
        if isinstance(part, int) and isinstance(here, Mapping):
            continue  # A single data set may be written without the list around it.
        listed = isinstance(here, Sequence) and not isinstance(here, str) and isinstance(part, int) and part < len(here)
        inside = listed or (isinstance(here, Mapping) and part in here)
        if not inside:
            return (*path, part) if detail["type"] == "missing" else tuple(path)
        path.append(part)
        here = here[part]
    return tuple(path)


def _mistake(path: Path, details: Sequence[ErrorDetails], raw: Mapping[str, Any]) -> Mistake:
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        return Mistake(path, _unknown_key(path), meant=_meant_by(path, raw))
    if "missing" in kinds:
        section = section_at(path[:-1])
        about = section.model_fields[str(path[-1])].description if section else None
        return Mistake(path, f"missing; add it: {about}" if about else "missing; add it")
    value = details[0]["input"]
    expected = list(dict.fromkeys(_expected(detail) for detail in details))
    near = ""
    if isinstance(value, str):
        options = [option for detail in details for option in str(detail.get("ctx", {}).get("expected", "")).split("'")]
        near = nearest(value, [option for option in options if option.strip(" ,")])
    return Mistake(path, " or ".join(expected) + near, value)


def _meant_by(path: Path, raw: Mapping[str, Any]) -> tuple[Path, ...]:
    """The field of its section that an unknown key is spelled like, and that the recipe does not write."""
    section = section_at(path[:-1])
    if section is None:
        return ()
    here: Any = raw
    for part in path[:-1]:
        here = here[part]
    absent = [name for name in near_names(str(path[-1]), section.model_fields) if name not in here]
    # One slip stands for one field, and for one that must be there before any other.
    absent.sort(key=lambda name: not section.model_fields[name].is_required())
    return tuple((*path[:-1], name) for name in absent[:1])


def _unknown_key(path: Path) -> str:
    key, section = str(path[-1]), section_at(path[:-1])
    if section is None:
        return "unknown key; remove it"
    elsewhere = [name for name in Recipe.model_fields if (child := section_at((name,))) and key in child.model_fields]
    if section is Recipe and elsewhere:
        return f"unknown key here; it belongs to a stage: {', '.join(f'{name}.{key}' for name in elsewhere)}"
    if section is Recipe and not nearest(key, section.model_fields):
        for name in section.model_fields:
            if (child := section_at((name,))) is not None and (near := nearest(key, child.model_fields)):
                return f"unknown key here{near} It belongs to a stage, as in {name}.KEY"
    return f"unknown key{nearest(key, section.model_fields)}; known keys are {', '.join(section.model_fields)}"


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a section of `key: value` lines",
    "model_type": "a section of `key: value` lines",
    "finite_number": "a finite number",
}


_PATTERNS = {
    RUN_NAME: "should be letters, digits, dots, dashes and underscores, as it names a folder",
    STAGE_NAME: "should be small letters, digits, dashes and underscores, a letter first, as it names a folder",
    TEMPLATE_HASH: "should be the 16 hex digits that docs/templates.md gives",
}
"""What a text should be that has to match one of these."""


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] in _TYPES:
        given = detail["input"]
        return f"wrong type, should be {_TYPES[detail['type']]}" + (f", not {_kind(given)}" if given is not None else "")
    if detail["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(detail.get("ctx", {}).get("pattern", ""), detail["msg"])
    return detail["msg"].removeprefix("Value error, ").replace("Input should be", "should be")


def _kind(value: object) -> str:
    kinds: dict[type, str] = {bool: "true or false", str: "text", int: "a whole number", float: "a number", list: "a list"}
    return kinds.get(type(value), "a section")


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    # Both ends stay, since the name of a file stands at the end of a path.
    return text if len(text) <= 80 else f"{text[:38]}...{text[-39:]}"
