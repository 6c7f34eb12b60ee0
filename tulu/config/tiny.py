"""`--tiny`: a recipe as it would be with a tiny random model and made-up rows, so that all of it can be tried in seconds.

What is tried is the recipe's own: losses, optimizer, schedules, algorithms, graders, templates, precision and sharding stay. Only
the model, the rows, and what counts or measures them change: sizes, lengths, batches and steps. A tiny recipe is the recipe with
further overrides, so it is checked, printed and resumed like any other, under a name of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.job import stages_of, template_of
from tulu.config.made_up import DEFAULT_TEMPLATE, Architecture, architecture_of
from tulu.config.recipe_stages import model_named_by, placed, stages_in
from tulu.config.schema import Recipe
from tulu.config.templates import OWN, TEMPLATES, source_of
from tulu.config.tiny_section import MadeUpRows, TinySection, shown
from tulu.config.unknown import hit, open_fields
from tulu.errors import RecipeError

SUFFIX = "-tiny"
_TAKEN = ("name", "model", "revision", "released", "start", "path")
"""Last parts of the keys whose overrides say what is made tiny, and not what the tiny recipe has there."""


@dataclass(frozen=True)
class Tiny:
    """What a tiny recipe needs, and how it differs from the recipe."""

    name: str
    inputs: Path
    """The folder of model and rows, which is written before the recipe runs."""
    overrides: tuple[str, ...]
    changes: tuple[str, ...]
    """What differs, one line for each section."""
    rows: tuple[MadeUpRows, ...]
    model: Architecture | None
    """The model to make; None where the recipe's base stage makes the only one."""
    bytes_alone: bool
    """Whether its tokenizer has the bytes alone, as that of the base stage, so that a teacher speaks what the policy does."""
    template: str
    """The text of the chat template that the tokenizer brings along."""
    template_name: str
    """Its name, where the recipe chooses among several of the tokenizer; else empty."""
    reward_model: bool
    """Whether a reward model is needed that no stage of the recipe trains."""
    others: tuple[str, ...]
    """The folders of further random models, each another: those that are merged and that no stage trains, and teachers."""


def shrink(recipe: Recipe, runs: Path, overrides: Sequence[str] = ()) -> Tiny:
    """The tiny recipe of a recipe, whose folder is runs/NAME-tiny. RecipeError where its architecture is not known here.

    `overrides` are those of the command line: what they set is no change.
    """
    name = recipe.name + SUFFIX
    inputs = (runs / name / "inputs").absolute()
    stages = stages_in(dict(recipe))
    given = tuple(text.partition("=")[0] for text in kept(overrides))
    sections = [TinySection(stage, inputs, tuple(stages), given) for stage in stages]
    # Where a recipe makes its own model, others may still be named: a start, a teacher, a reward model.
    model = _architecture(recipe) if recipe.base is None or any(section.needs_model for section in sections) else None
    values: dict[str, Any] = {"name": name} | ({"tracker": "none"} if recipe.tracker else {})
    if recipe.base is None:
        values["model"] = str(inputs / "model")
    for section in sections:
        values |= section.values()
    stand_ins = {field: value for field, value in _open_values(recipe).items() if not hit(field, list(values))}
    own = next((one for one in _templates(recipe) if one.partition(":")[0] == OWN), "")
    return Tiny(
        name=name,
        inputs=inputs,
        overrides=tuple(f"{key}={json.dumps(value)}" for key, value in {**values, **stand_ins}.items()),
        changes=tuple(_lines(recipe, model, own, sections, stand_ins)),
        rows=tuple(row for section in sections for row in section.rows()),
        model=model,
        bytes_alone=recipe.base is not None and not any(section.starts_elsewhere for section in sections),
        template=_template_text(recipe, model),
        template_name=own.partition(":")[2],
        reward_model=any(section.needs_reward_model for section in sections),
        others=tuple(dict.fromkeys(name for section in sections for name in section.others)),
    )


def kept(overrides: Sequence[str]) -> list[str]:
    """The overrides of a command line that hold in the tiny recipe too: all but those that say which model it is made of."""
    return [text for text in overrides if text.partition("=")[0].rpartition(".")[2] not in _TAKEN]


def _architecture(recipe: Recipe) -> Architecture:
    stages = stages_of(recipe)
    starts = [model_named_by(stage.section.start, stages) or stage.section.released for stage in stages]
    first = next((name for name in (recipe.model, *starts) if name is not None), None)
    if first is None and recipe.base is not None:
        return Architecture(dict(recipe.base.config))
    if first is None:
        raise RecipeError(f"--tiny: recipe {recipe.name} names no model; set model, or the start of a stage")
    return architecture_of(first)


def _templates(recipe: Recipe) -> Iterator[str]:
    yield recipe.template
    yield from (stage.section.template for stage in stages_of(recipe) if stage.section.template is not None)


def _template_text(recipe: Recipe, model: Architecture | None) -> str:
    """The text of the first stage's template, so that all models are of one kind; where that is the tokenizer's own, another."""
    stages = stages_of(recipe)
    text = source_of(template_of(recipe, stages[0].section if stages else None)[0])
    named = model.template if model is not None else DEFAULT_TEMPLATE
    return text or TEMPLATES.get(named, named)


def _open_values(recipe: Recipe) -> dict[str, Any]:
    """The stand-in of every field that was never published."""
    values = recipe.model_dump(mode="json")

    def at(key: str) -> Any:
        here: Any = values
        for part in placed(key.split("."), values):
            here = here[part] if isinstance(part, int) or isinstance(here, Mapping) else None
        return here

    return {field: at(field) for field in open_fields(recipe)}


def _lines(
    recipe: Recipe, model: Architecture | None, own: str, sections: list[TinySection], stand_ins: Mapping[str, Any]
) -> Iterator[str]:
    if model is not None and (recipe.base is None or any(section.starts_elsewhere for section in sections)):
        yield f"model: a random {model.config['model_type']} with a tokenizer of bytes, in place of {recipe.model or 'the start'}"
        if own and source_of(recipe.template) is None and not model.template.strip().startswith("{"):
            yield f"template: {model.template} for the tokenizer's own, which is not here"
    yield from (section.line() for section in sections)
    yield from (f"{field}: was never published; here {shown(value)}" for field, value in stand_ins.items())
