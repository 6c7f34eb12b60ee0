"""How many processes train, and who starts them: `--gpus`, a launcher of several, or a recipe's `rlvr.resources.learners`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tulu.config.cluster import cluster_address
from tulu.config.recipe_stages import RecipeStage
from tulu.config.schema import Rlvr
from tulu.errors import RecipeError


@dataclass(frozen=True)
class Learners:
    """The processes that are to train."""

    count: int | None
    """None where nobody says how many."""
    said: str
    """Where the number stands."""
    in_ray: bool
    """Whether Ray starts them, on whatever nodes of the cluster have the GPUs."""


def learners_of(stages: Iterable[RecipeStage[Any]], gpus: int | None) -> Learners:
    """The processes that train these stages. Raises RecipeError where `--gpus` and the recipe name different numbers.

    Where RAY_ADDRESS names no cluster, `resources.learners: 8` is the same as `--gpus 8`.
    """
    sections = {stage.key: stage.section for stage in stages}
    numbers = {key: section.resources.learners for key, section in sections.items() if isinstance(section, Rlvr)}
    recipe = {f"{key}.resources.learners": number for key, number in numbers.items() if number is not None}
    asked: dict[str, int | None] = {**recipe} if gpus is None else {**recipe, "--gpus": gpus}
    (first, count), *others = asked.items() or {"--gpus": None}.items()
    for other, number in others:
        if number != count:
            raise RecipeError(f"{first}={count} and {other}={number}: give both the same number, or leave one of them out")
    return Learners(count, first, bool(recipe and cluster_address()))
