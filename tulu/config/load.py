"""From a recipe's name and `key.path=value` overrides to a checked Recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tulu.config.checks import combination_mistakes
from tulu.config.job import stages_of
from tulu.config.locate import refuse_empty
from tulu.config.mistakes import Mistake, report, schema_mistakes
from tulu.config.processes import world_size
from tulu.config.recipe_stages import Key, below, dotted, led_to_by, parts_of, placed, stages_in
from tulu.config.schema import Recipe
from tulu.config.stages import STAGES, TRAINING
from tulu.config.templates import OWN, SUFFIX
from tulu.config.unknown import decide
from tulu.config.yaml_text import Located, dump_yaml, parse_value, read_yaml
from tulu.errors import RecipeError, nearest

COMMAND_LINE = "command line"
"""Where a value stands that an override gives."""
BUILT_IN = Path(__file__).resolve().parents[1] / "recipes"
"""The recipes that come with the package (a link to recipes/ in a checkout)."""


def built_in() -> list[Path]:
    """The recipes that come with the package, sorted by name."""
    return sorted(BUILT_IN.glob("*.yaml"))


def is_built_in(name: str) -> bool:
    """Whether a name is that of a recipe that comes with the package, and of nothing in the working folder."""
    return not Path(name).exists() and any(recipe.stem == name for recipe in built_in())


def find_recipe(name: str) -> Path:
    """A recipe file: a path, or a built-in one by name (`quickstart`, `recipes/quickstart.yaml`). Raises RecipeError."""
    if (path := Path(name)).is_file():
        return path
    by_name = {recipe.stem: recipe for recipe in built_in()}
    stem = name.removeprefix("recipes/").removesuffix(".yaml")
    if stem in by_name:
        return by_name[stem]
    hint = nearest(stem, by_name) or f"; built-in recipes are {', '.join(by_name)}"
    raise RecipeError(f"{name}: no such recipe{hint}")


def load_recipe(
    path_or_name: str, overrides: Sequence[str] = (), processes: int | None = None, stage: str | None = None
) -> Recipe:
    """Read, override and check a recipe; a RecipeError lists every mistake with its line, value and cure.

    `processes` is the number of training processes over which the batch of `stage` must divide (sft, rlvr.math, or rlvr for all
    of a list). The default is the WORLD_SIZE that torchrun and accelerate set, and the batches of all stages.
    """
    processes = world_size() if processes is None else processes
    path = find_recipe(path_or_name)
    checked = [stage] if stage else [row.name for row in TRAINING]
    located, recipe, mistakes = _checked(path, overrides, dict.fromkeys(checked, processes))
    if mistakes or recipe is None:
        if overrides:
            _, _, of_the_file = _checked(path, (), dict.fromkeys(checked, processes))
            mistakes = [_blamed(mistake, located, of_the_file) for mistake in mistakes]
        raise report(path_or_name, mistakes, located.lines, located.value)
    for part in (part for name in checked for part in stages_of(recipe, name)):
        # It is told here because an earlier stage may have to run for hours before this one reads its data.
        for source in (*part.section.data, *(getattr(part.section, "eval_data", None) or ())):
            refuse_empty(Path(source.name).expanduser(), source.name)
    return recipe


def _checked(path: Path, overrides: Sequence[str], processes: Mapping[str, int]) -> tuple[Located, Recipe | None, list[Mistake]]:
    """What stands in a file with these overrides, the recipe that it is, and every mistake in it."""
    located = read_yaml(path)
    mistakes = override(located, overrides)
    _place_templates(located, located.value, path.parent)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(located.value)
    except ValidationError as error:
        mistakes += schema_mistakes(error, located.value)
    # A field that somebody misspelled is as unknown as one that is wrong: no check can be made of it.
    wrong = {path for mistake in mistakes for path in (mistake.path, *mistake.meant)}
    return located, recipe, mistakes + combination_mistakes(located.value, wrong, processes)


def _blamed(mistake: Mistake, located: Located, of_the_file: Sequence[Mistake]) -> Mistake:
    """A mistake that the file alone does not have was made on the command line, wherever the field that it shows in stands."""
    where = mistake.written(located.lines)
    if mistake.where or where == COMMAND_LINE or mistake in of_the_file:
        return mistake
    return replace(mistake, where=f"{COMMAND_LINE} and {where}" if where else COMMAND_LINE)


def override(located: Located, overrides: Sequence[str]) -> list[Mistake]:
    """Apply each `key.path=value` in order, in place; the result lists those that cannot be applied.

    `model=OTHER` makes it another model's recipe: the released checkpoints, the revision and the section that makes a
    new model belong to the file's own model, so they are dropped unless they are overridden too. An overridden field is no
    longer `unknown`.
    """
    mistakes: list[Mistake] = []
    keys = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            mistakes.append(Mistake((text,), "an override is key.path=value, such as sft.batch=64", where=COMMAND_LINE))
            continue
        path = placed(parts_of(key), located.value)
        keys.append(dotted(path, located.value))
        mistakes += [replace(mistake, where=COMMAND_LINE) for mistake in _assign(located, path, value)]
    decide(located.value, keys)
    _drop_pins(located.value, keys)
    if "model" in keys and located.value.get("model") is not None:
        _drop_what_belongs_to_the_old_model(located.value, keys)
    return mistakes


def _drop_pins(raw: dict[Any, Any], overridden: Sequence[str]) -> None:
    """Another template has another hash; so has the tokenizer's own where another model brings it."""
    for name, section in (("", raw), *((f"{stage.key}.", stage.section) for stage in stages_in(raw))):
        brought = str(section.get("template", OWN)).partition(":")[0] == OWN
        other = f"{name}template" in overridden or (brought and "model" in overridden)
        if other and f"{name}template_hash" not in overridden:
            section.pop("template_hash", None)


def _place_templates(located: Located, section: Any, folder: Path, at: tuple[str | int, ...] = ()) -> None:
    """Make paths of template files absolute: they are relative to the recipe, and those of overrides to the working folder."""
    for key, value in section.items() if isinstance(section, dict) else enumerate(section) if isinstance(section, list) else ():
        if key == "template" and isinstance(value, str) and value.endswith(SUFFIX):
            from_here = located.lines.get((*at, key)) == COMMAND_LINE
            section[key] = str((Path.cwd() if from_here else folder.resolve()) / Path(value).expanduser())
        else:
            _place_templates(located, value, folder, (*at, key))


def _drop_what_belongs_to_the_old_model(raw: dict[Any, Any], overridden: Sequence[str]) -> None:
    for stage in stages_in(raw):
        name, section = stage.key, stage.section
        if f"{name}.released" not in overridden:
            section.pop("released", None)
        if isinstance(section.get("value"), dict) and f"{name}.value.released" not in overridden:
            section["value"].pop("released", None)
    if "revision" not in overridden:
        raw.pop("revision", None)
    for name in (row.name for row in TRAINING if row.makes_model):
        if not any(key == name or key.startswith(f"{name}.") for key in overridden):
            raw.pop(name, None)


def _assign(located: Located, path: tuple[str | int, ...], text: str) -> list[Mistake]:
    try:
        value = parse_value(text)
    except RecipeError as error:
        return [Mistake(path, f"{text!r} is not YAML ({error}); quote it, as key='\"text\"'")]
    here: Any = located.value
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list) and isinstance(part, int):
            if part >= len(here):
                return [Mistake(path, f"there are {len(here)} items, counted from 0")]
        elif isinstance(here, list) and path[:depth] == (path[0],) and path[0] in STAGES:
            return [Mistake(path, _which_of_several(path, located.value))]
        elif not isinstance(here, dict):
            return [Mistake(path, f"{dotted(path[:depth])} is {here!r}, which has no {part}")]
        elif not last and here.get(part) is None:
            here[part] = {}
            located.lines[path[: depth + 1]] = COMMAND_LINE
        if last:
            here[part] = value
            # What stood below it in the file is not there any more, and a mistake in the new value is not that line's.
            for key in [key for key in located.lines if key[: len(path)] == path]:
                del located.lines[key]
            located.lines[path] = COMMAND_LINE
        else:
            here = here[part]
    return []


def _which_of_several(path: Key, sections: Mapping[str, Any]) -> str:
    """What to write in place of a key that names none of the stages of a list."""
    names = [stage.name for stage in stages_in(sections) if stage.row.name == path[0]]
    field = ".".join(map(str, path[1:] if len(path) == 2 else path[2:]))
    example = f", such as {path[0]}.{names[0]}.{field}" if names else ""
    return f"{path[0]} is a list of stages ({', '.join(names)}){nearest(str(path[1]), names)}; name one{example}"


def dump(recipe: Recipe, only: str | None = None, ascii_only: bool = False) -> str:
    """The resolved recipe as YAML with every field written; `load_recipe` reads it back as an equal Recipe.

    With `only`, which names a stage, the sections of the others are left out, and what is unknown of them; those that it names
    as its start, or follows in a list, stay.
    """
    values = recipe.model_dump(mode="json")
    if only is not None:
        stages = stages_in(dict(recipe))
        kept = {part.path for stage in stages if stage.key == only for part in (*led_to_by(stage, stages), stage)}
        left_out = [stage.key for stage in stages if stage.path not in kept]
        for name in STAGES:
            if isinstance(values[name], list):
                values[name] = [section for place, section in enumerate(values[name]) if (name, place) in kept]
            if not any(path[0] == name for path in kept):
                del values[name]
        values["unknown"] = [entry for entry in values["unknown"] if not any(below(field, left_out) for field in entry)]
    return dump_yaml(values, ascii_only)
