"""From a recipe's name and `key.path=value` overrides to a checked Recipe, and from that to a stage's Job; no torch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from tulu.config.checks import combination_mistakes
from tulu.config.mistakes import Mistake, nearest, report, schema_mistakes
from tulu.config.schema import Recipe
from tulu.config.yaml_text import Located, dump_yaml, parse_value, read_yaml
from tulu.errors import RecipeError

Stage = Literal["base", "sft", "dpo", "rm", "rlvr", "evaluate"]
STAGES: tuple[Stage, ...] = ("base", "sft", "dpo", "rm", "rlvr")
"""Training stages, in the order of `tulu run`."""

STARTS_FROM: Mapping[str, tuple[Stage, ...]] = {
    "base": (),
    "sft": ("base",),
    "dpo": ("sft",),
    "rm": ("sft",),
    "rlvr": ("dpo", "sft"),
    "evaluate": ("rlvr", "dpo", "sft", "base"),
}
"""The stages whose model a stage takes up, best first."""

BUILT_IN = Path(__file__).resolve().parents[1] / "recipes"
"""The recipes that come with the package (a link to recipes/ in a checkout)."""


@dataclass(frozen=True)
class Job:
    """One stage of a recipe, ready to run: what, where, from which model."""

    recipe: Recipe
    stage: str
    folder: Path
    """runs/NAME/STAGE."""
    start: str | None
    """Model folder or hub name; None where the stage makes its own model."""
    fresh: bool = False
    """Start over instead of resuming."""


def built_in() -> list[Path]:
    """The recipes that come with the package, by name."""
    return sorted(BUILT_IN.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe file: a path, or a built-in by name (`quickstart`, `recipes/quickstart.yaml`). Raises RecipeError."""
    if (path := Path(name)).is_file():
        return path
    known = {recipe.stem: recipe for recipe in built_in()}
    wanted = name.removeprefix("recipes/").removesuffix(".yaml")
    if wanted in known:
        return known[wanted]
    hint = nearest(wanted, known) or f"; built-in recipes are {', '.join(known)}"
    raise RecipeError(f"{name}: no such recipe{hint}")


def load_recipe(
    path_or_name: str, overrides: Sequence[str] = (), processes: int | None = None, stage: str | None = None
) -> Recipe:
    """Read, override and check a recipe; a RecipeError lists every mistake with its line, value and cure.

    `processes` is the number of training processes (default: the WORLD_SIZE that torchrun and accelerate set), over
    which the batch of `stage` (default: of every stage) must divide.
    """
    processes = world_size() if processes is None else processes
    path = find_recipe(path_or_name)
    located = read_yaml(path)
    mistakes = override(located, overrides)
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(located.value)
    except ValidationError as error:
        mistakes += schema_mistakes(error, located.value)
    wrong = {mistake.path for mistake in mistakes}
    mistakes += combination_mistakes(located.value, wrong, dict.fromkeys([stage] if stage else STAGES, processes))
    if mistakes or recipe is None:
        raise report(path_or_name, mistakes, located.lines)
    return recipe


def override(located: Located, overrides: Sequence[str]) -> list[Mistake]:
    """Apply `key.path=value` in order, in place; what cannot be applied is returned.

    A `model=` makes it another model's recipe: the released checkpoints, the revision and the base section that belong
    to the file's own model are dropped, unless they are overridden too.
    """
    mistakes: list[Mistake] = []
    keys = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            mistakes.append(Mistake((text,), "an override is key.path=value, such as sft.batch=64", shown=False))
            continue
        keys.append(key)
        mistakes += _assign(located, tuple(int(part) if part.isdigit() else part for part in key.split(".")), value)
    if "model" in keys and isinstance(located.value, dict) and located.value.get("model") is not None:
        for name, section in located.value.items():
            if isinstance(section, dict) and f"{name}.released" not in keys:
                section.pop("released", None)
            if isinstance(section, dict) and isinstance(section.get("value"), dict) and f"{name}.value.released" not in keys:
                section["value"].pop("released", None)
        if "revision" not in keys:
            located.value.pop("revision", None)
        if not any(key == "base" or key.startswith("base.") for key in keys):
            located.value.pop("base", None)
    return mistakes


def _assign(located: Located, path: tuple[str | int, ...], text: str) -> list[Mistake]:
    try:
        value = parse_value(text)
    except RecipeError as error:
        return [Mistake(path, f"{text!r} is not YAML ({error}); quote it, as key='\"text\"'", shown=False)]
    here: Any = located.value
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(here, list) and isinstance(part, int):
            if part >= len(here):
                return [Mistake(path, f"there are {len(here)} items, counted from 0", shown=False)]
        elif not isinstance(here, dict):
            return [Mistake(path, f"{'.'.join(map(str, path[:depth]))} is {here!r}, which has no {part}", shown=False)]
        elif not last and here.get(part) is None:
            here[part] = {}
        if last:
            here[part] = value
            located.lines[path] = "command line"
        else:
            here = here[part]
    return []


def world_size() -> int:
    """How many processes torchrun or accelerate started; 1 otherwise. Raises RecipeError."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise RecipeError(f"WORLD_SIZE={text!r}: should be a whole number of processes; unset it or launch with torchrun")
    return int(text)


def dump(recipe: Recipe, only: str | None = None) -> str:
    """The resolved recipe as YAML, every field written; `load_recipe` of it gives an equal Recipe.

    With `only`, the sections of the other stages are left out.
    """
    others: set[str] = {name for name in (*STAGES, "evaluate") if only is not None and name != only}
    return dump_yaml(recipe.model_dump(mode="json", exclude=others))


def section_of(recipe: Recipe, stage: str) -> Any:
    """The recipe's section of a stage. Raises RecipeError where the recipe has none."""
    present = {name: section for name in (*STAGES, "evaluate") if (section := dict(recipe)[name]) is not None}
    if stage not in present:
        raise RecipeError(f"recipe {recipe.name} has no {stage} section; it has {', '.join(present) or 'none'}: add one")
    return present[stage]


def missing(recipe: Recipe, stage: str, runs: Path) -> list[Stage]:
    """Earlier stages that must run first because the stage has nothing else to start from, in order."""
    wanted: list[Stage] = []
    if stage != "base" and _start(recipe, stage, runs) is None:
        sections = dict(recipe)
        previous = next((earlier for earlier in STARTS_FROM[stage] if sections[earlier] is not None), None)
        if previous is not None:
            wanted = [*missing(recipe, previous, runs), previous]
    return wanted


def make_job(recipe: Recipe, stage: str, runs: Path, fresh: bool = False) -> Job:
    """Where a stage of a recipe runs and what it starts from. Raises RecipeError.

    It starts from its `start`, else from the earlier stage's model in the run folder, else from its `released`
    checkpoint, else from the recipe's model.
    """
    if stage != "evaluate":
        section_of(recipe, stage)
    start = None if stage == "base" else _start(recipe, stage, runs)
    if start is None and stage != "base":
        earlier = " or ".join(f"`tulu {name}`" for name in STARTS_FROM[stage] if dict(recipe)[name] is not None)
        cure = f"run {earlier} first, or set {stage}.start" if earlier else f"set model or {stage}.start"
        raise RecipeError(f"{stage} has no model to start from: nothing in {runs / recipe.name}; {cure}")
    return Job(recipe, stage, runs / recipe.name / stage, start, fresh)


def _start(recipe: Recipe, stage: str, runs: Path) -> str | None:
    section = dict(recipe)[stage]
    trains = stage in STAGES and section is not None
    if trains and section.start:
        return str(section.start)
    for earlier in STARTS_FROM[stage]:
        folder = runs / recipe.name / earlier
        if (folder / "model").is_dir():
            _same_origin(recipe, stage, folder)
            return str(folder / "model")
    if trains and section.released:
        return str(section.released)
    return recipe.model


def _same_origin(recipe: Recipe, stage: str, folder: Path) -> None:
    """Refuse a model that an earlier stage made from another base: its recipe.yaml says from which."""
    record = folder / "recipe.yaml"
    if not record.is_file():
        raise RecipeError(
            f"{folder}/model has no recipe.yaml beside it, so its origin is unknown; set {stage}.start={folder}/model"
        )
    earlier = read_yaml(record).value
    for key in ("model", "revision"):
        theirs, ours = earlier.get(key), dict(recipe)[key]
        if theirs != ours:
            raise RecipeError(
                f"{folder}/model was made with {key} {theirs}, but this recipe says {key} {ours}; "
                f"run `tulu {folder.name}` again with --fresh, give this run another name (name=...), "
                f"or set {stage}.start={folder}/model"
            )
