"""Mistakes in the chat templates that a recipe names: unknown ones, files that render nothing, and other texts than it pins."""

from collections.abc import Iterator

from tulu.config.mistakes import Mistake
from tulu.config.templates import OWN, hash_problem, source_of, template_problem
from tulu.config.values import Values


def recipe_template(recipe: Values) -> Iterator[Mistake]:
    yield from _template_mistakes(recipe, "template", recipe.template, recipe.template_hash)
    if recipe.template.partition(":")[0] == OWN and recipe.base is not None:
        yield recipe.mistake("template", "the tokenizer that the base section makes has no template; name one, such as tulu")


def stage_template(stage: Values) -> Iterator[Mistake]:
    if stage.template is not None:
        yield from _template_mistakes(stage, "template", stage.template, stage.template_hash)
    elif stage.template_hash is not None:
        yield stage.mistake("template_hash", "the stage has no template of its own; pin the recipe's template_hash, or add one")


def reward_models_template(stage: Values) -> Iterator[Mistake]:
    if stage.reward_model is not None:
        yield from _template_mistakes(stage, "reward_model.template", stage.reward_model.template, None)


def _template_mistakes(section: Values, key: str, name: str, pinned: str | None) -> Iterator[Mistake]:
    if problem := template_problem(name):
        yield section.mistake(key, problem, name)
    elif problem := hash_problem(source_of(name), pinned):
        yield section.mistake("template_hash", problem, pinned)
