"""Mistakes about the models that a recipe merges."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from tulu.config.locate import start_problem
from tulu.config.mistakes import MISSING, Mistake
from tulu.config.stages import STAGES
from tulu.config.values import Values


def merged_models(stage: Values) -> Iterator[Mistake]:
    """Weights that are not one for each model, a model that is listed twice, and one that is not there."""
    models, weights = stage.models, stage.weights
    if weights is not None and len(weights) != len(models):
        text = f"{len(weights)} weights for {len(models)} models; give one for each, or null to weigh all alike"
        yield stage.mistake("weights", text, MISSING)
    earlier = [name for name in takewhile(lambda name: name != "merge", STAGES) if name in stage.sections]
    seen: dict[Any, int] = {}
    for index, model in enumerate(models):
        if model in seen:
            yield stage.mistake(
                f"models.{index}", f"is also item {seen[model]}; list a model once, with a larger weight", MISSING
            )
        seen.setdefault(model, index)
        if model.run is None and model.stage is not None and model.stage not in earlier:
            cure = f"name one of those, or say which run trained it: {{stage: {model.stage}, run: NAME}}"
            text = f"this recipe has no {model.stage} before merge (it has {', '.join(earlier) or 'none'}); {cure}"
            yield stage.mistake(f"models.{index}.stage", text, MISSING)
        if model.name is not None and (problem := start_problem(model.name)):
            yield stage.mistake(f"models.{index}.name", problem, model.name)
