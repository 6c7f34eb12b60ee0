"""Fields that the original of a released recipe never published: which they are, and that nothing trains before they are decided.

What a recipe writes at such a field is a stand-in, so that `tulu plan` and `--dry-run` have a number. An override of the field is
the decision: it takes the field off the list.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tulu.config.mistakes import MISSING, Mistake, section_at
from tulu.config.recipe_stages import below, placed, stages_in
from tulu.config.schema import Recipe
from tulu.config.stages import STAGES
from tulu.errors import RecipeError, nearest


def unknown_mistakes(unknown: Sequence[Mapping[str, str]], sections: Mapping[str, Any]) -> Iterator[Mistake]:
    """Entries that name no field, a field of a section that the recipe has not, or one that is there already."""
    seen: set[str] = set()
    several = {stage.row.name: stage.key for stage in stages_in(sections) if stage.place is not None}
    for index, entry in enumerate(unknown):
        for field in entry:
            section, _, key = field.rpartition(".")
            declared = section_at(placed(section.split("."), sections) if section else ())
            text = ""
            if section in several:
                text = f"this recipe has several {section} stages; name one, such as {several[section]}.{key}"
            elif declared is None:
                text = f"names no section of a recipe{nearest(section, [*STAGES, *several.values()])}"
            elif key not in declared.model_fields:
                text = f"names no field of a recipe{nearest(key, declared.model_fields)}"
            elif section and section.partition(".")[0] not in sections:
                text = f"this recipe has no {section} section; add it, or remove the entry"
            elif field in seen:
                text = "is listed twice; keep one"
            if text:
                yield Mistake(("unknown", index, field), text, MISSING)
            seen.add(field)


def decide(raw: dict[Any, Any], overridden: Sequence[str]) -> None:
    """Take the fields that are overridden off a recipe's list, in place."""
    listed = raw.get("unknown")
    if not isinstance(listed, list) or not all(isinstance(entry, Mapping) for entry in listed):
        return  # Something else is a mistake that the schema reports.
    raw["unknown"] = [entry for entry in listed if not any(hit(field, overridden) for field in entry)]


def hit(field: Any, overridden: Sequence[str]) -> bool:
    """Whether one of the overridden keys is a field, a section that holds it, or something in it, such as rlvr.data.0.count."""
    return any(f"{field}.".startswith(f"{key}.") or f"{key}.".startswith(f"{field}.") for key in overridden)


def open_fields(recipe: Recipe, stages: Sequence[str] = tuple(STAGES)) -> dict[str, str]:
    """The fields of these stages, and of the recipe itself, that are still to be decided, each with the reason.

    A stage is named as overrides name it: sft, rlvr.math, or rlvr for all of a list.
    """
    entries = {field: why for entry in recipe.unknown for field, why in entry.items()}
    return {field: why for field, why in entries.items() if "." not in field or below(field, stages)}


def demand(recipe: Recipe, stages: Sequence[str]) -> None:
    """RecipeError where a field of one of these stages was never published and is not decided yet."""
    waiting = open_fields(recipe, stages)
    if not waiting:
        return
    count = "1 field was" if len(waiting) == 1 else f"{len(waiting)} fields were"
    stand_ins = {field: _stand_in(recipe, field) for field in waiting}
    lines = [f"  {field}: {why}; the recipe plans with {_shown(stand_ins[field])}" for field, why in waiting.items()]
    cure = " ".join(f"{field}={_written(stand_ins[field])}" for field in waiting)
    raise RecipeError(
        f"recipe {recipe.name}: {count} never published, so you decide before it trains:\n"
        + "\n".join(lines)
        + f"\nappend your values, such as {cure}"
    )


def _stand_in(recipe: Recipe, field: str) -> Any:
    here: Any = recipe.model_dump(mode="json")
    for part in placed(field.split("."), here):
        here = here[part] if isinstance(part, int) or isinstance(here, Mapping) else None
    return here


def _shown(value: Any) -> str:
    """A stand-in in a sentence: a mix by its first data set."""
    if isinstance(value, list):
        names = [entry["name"] if isinstance(entry, Mapping) else str(entry) for entry in value]
        return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "") if names else "none"
    return _written(value)


def _written(value: Any) -> str:
    """A stand-in as an override writes it; rows of one's own in place of a mix."""
    if isinstance(value, list):
        return "rows.jsonl"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
