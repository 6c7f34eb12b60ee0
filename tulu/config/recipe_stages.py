"""The stages of one recipe: a section makes one stage, and a list of sections several, each with a name of its own.

What is written (plain YAML) and what was checked (a Recipe's fields) are walked alike. Inside the loader a section of a list is
found by its place, because its name may be missing or wrong; people name it: `rlvr.math.steps` is the field of the stage math.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tulu.config.parts import Named
from tulu.config.stages import STAGES, Stage

S = TypeVar("S")
Key = tuple[str | int, ...]
"""Where a value stands, such as ("rlvr", 0, "steps")."""
_NAMED = re.compile(r"(?P<stage>[A-Za-z][\w.-]*?)(@step-(?P<step>\d+))?")


@dataclass(frozen=True)
class RecipeStage(Generic[S]):
    """One stage of a recipe: its row of the stage table, and its section."""

    row: Stage
    section: S
    place: int | None = None
    """Its place in a list of sections; None for a section that stands alone."""

    @property
    def name(self) -> str:
        """What people call the stage, and the name of its folder in a run: sft, or the name that its section has in a list."""
        if self.place is None:
            return self.row.name
        return _given_name(self.section) or str(self.place)

    @property
    def key(self) -> str:
        """What stands before its fields in an override: sft, or rlvr.math."""
        return self.row.name if self.place is None else f"{self.row.name}.{self.name}"

    @property
    def path(self) -> Key:
        """Where its section stands."""
        return (self.row.name,) if self.place is None else (self.row.name, self.place)


def _given_name(section: object) -> str | None:
    """The name of a section of a list; None where what is written has none."""
    given = section.name if isinstance(section, Named) else section.get("name") if isinstance(section, Mapping) else None
    return given if isinstance(given, str) else None


def stages_in(sections: Mapping[str, Any]) -> list[RecipeStage[Any]]:
    """Every stage that has a section, in the order in which they run; `sections` has what stands at each key of a recipe."""
    return [stage for row in STAGES.values() for stage in _stages_at(row, sections.get(row.name))]


def _stages_at(row: Stage, value: Any) -> Iterator[RecipeStage[Any]]:
    if isinstance(value, list | tuple):
        yield from (RecipeStage(row, section, place) for place, section in enumerate(value) if _is_section(section))
    elif _is_section(value):
        yield RecipeStage(row, value)


def _is_section(value: Any) -> bool:
    return value is not None and not isinstance(value, str | int | float | list | tuple)


def takes_from(stage: RecipeStage[Any], stages: Sequence[RecipeStage[Any]]) -> list[RecipeStage[Any]]:
    """The stages whose model a stage takes unless its `start` says otherwise, best first.

    That is the one before in its own list; for all others those of the rows that the stage table names, the last of a list
    first. A row of which the recipe has no section counts too, since an earlier recipe of this name may have trained it.
    """
    if stage.place:
        return [earlier for earlier in stages if earlier.path == (stage.row.name, stage.place - 1)]
    found: list[RecipeStage[Any]] = []
    for name in stage.row.starts_from:
        found += [earlier for earlier in stages if earlier.row.name == name][::-1] or [RecipeStage(STAGES[name], None)]
    return found


def named_by(start: str | None, stages: Sequence[RecipeStage[Any]]) -> tuple[RecipeStage[Any], int | None] | None:
    """The stage that a `start` names, and the step if it names one (`math@step-480`); None where it names no stage."""
    named = _NAMED.fullmatch(start or "")
    if named is None:
        return None
    found = next((stage for stage in stages if named["stage"] in (stage.name, stage.key)), None)
    return None if found is None else (found, int(named["step"]) if named["step"] else None)


def model_named_by(start: str | None, stages: Sequence[RecipeStage[Any]]) -> str | None:
    """The folder or hub name that a `start` gives; None where it gives none, or names a stage of the recipe."""
    return None if named_by(start, stages) else start


def led_to_by(stage: RecipeStage[Any], stages: Sequence[RecipeStage[Any]]) -> list[RecipeStage[Any]]:
    """The stages without which a recipe would start this one from another model: those that it names, or follows in a list."""
    section: Any = stage.section
    named = named_by(section.start, stages) if stage.row.trains else None
    before = named[0] if named else None
    if stage.place and not section.start:
        before = takes_from(stage, stages)[0]
    return [] if before is None else [*led_to_by(before, stages), before]


def parts_of(key: str) -> Key:
    """The parts of a key that people wrote; a number is a place in a list."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


def placed(path: Sequence[str | int], sections: Mapping[str, Any]) -> Key:
    """A path that people wrote, with the place of a section in its list instead of its name: rlvr.math is ("rlvr", 1)."""
    for stage in stages_in(sections):
        if stage.place is not None and tuple(path[:2]) == (stage.row.name, stage.name):
            return (*stage.path, *path[2:])
    return tuple(path)


def dotted(path: Sequence[str | int], sections: Mapping[str, Any] | None = None) -> str:
    """A key as overrides write it, `sft.data.0.name`; with the sections of its recipe, those of a list by name."""
    for stage in stages_in(sections or {}):
        if stage.place is not None and tuple(path[:2]) == stage.path:
            return ".".join([stage.key, *map(str, path[2:])])
    return ".".join(map(str, path))


def below(field: str, stages: Sequence[str]) -> bool:
    """Whether a field, such as rlvr.math.beta, is one of these stages' (`rlvr` has those of all its sections)."""
    return any(f"{field}.".startswith(f"{stage}.") for stage in stages)
