"""A section of a recipe as checks read it: the fields that are right by themselves, and where a mistake stands."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from tulu.config.mistakes import Mistake
from tulu.config.mistakes import Path as Key
from tulu.config.recipe_stages import RecipeStage
from tulu.config.stages import Stage


class Unread(Exception):
    """Ends a check that reads a field which the section lacks, or which is wrong by itself."""


@dataclass(frozen=True)
class Values:
    """The valid fields of one section, read as attributes, and what surrounds the section."""

    at: RecipeStage[Any] | None
    """The stage that the section describes; None for the recipe itself."""
    fields: Mapping[str, Any]
    declared: Mapping[str, FieldInfo]
    """All the fields that the section may have."""
    sections: Mapping[str, Any]
    """The sections of the recipe that are there, as they are written."""
    processes: int
    """How many processes train the stage."""
    given: Collection[str] = ()
    """The keys that are written in the section."""

    @property
    def name(self) -> str:
        """What stands before the section's fields in an override; empty for the recipe itself."""
        return self.at.key if self.at else ""

    @property
    def stage(self) -> Stage:
        """The section's row of the stage table."""
        assert self.at is not None
        return self.at.row

    def __getattr__(self, name: str) -> Any:
        if name not in self.fields:
            raise Unread(name)
        return self.fields[name]

    def mistake(self, key: str, text: str, value: Any = None) -> Mistake:
        """A mistake at one of this section's keys, with its value, or another that is given: MISSING shows none."""
        path: Key = (*(self.at.path if self.at else ()), *key.split("."))
        return Mistake(path, text, self.fields.get(key) if value is None else value)
