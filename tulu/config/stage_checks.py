"""Mistakes in how the stages of a recipe hang together: two of one name, and a start that names no earlier stage."""

from collections import Counter
from collections.abc import Iterator

from tulu.config.locate import start_problem
from tulu.config.mistakes import Mistake
from tulu.config.recipe_stages import RecipeStage, named_by, stages_in
from tulu.config.stages import STAGES
from tulu.config.values import Values
from tulu.errors import nearest


def stage_names(recipe: Values) -> Iterator[Mistake]:
    """A stage of a list has a name of its own, which no other stage of any recipe has."""
    listed = [stage for stage in stages_in(recipe.sections) if stage.place is not None]
    uses = Counter(stage.name for stage in listed)
    for stage in listed:
        if uses[stage.name] > 1:
            first = next(other for other in listed if other.name == stage.name)
            if stage is not first:
                text = f"is also the name of stage {first.place} of the list (from 0); give each a name of its own"
                yield Mistake((*stage.path, "name"), text, stage.name)
        elif stage.name in STAGES:
            yield Mistake((*stage.path, "name"), "is the name of a stage itself; choose another, such as mixed", stage.name)


def stage_start(stage: Values) -> Iterator[Mistake]:
    """`start` is a model, or names a stage that runs before this one and keeps what is asked for."""
    start: str | None = stage.start
    assert stage.at is not None
    if start is None:
        return
    stages = stages_in(stage.sections)
    before = [other for other in stages if other.path in [each.path for each in _before(stage.at, stages)]]
    if problem := _unnamed(start, stages, before) if named_by(start, before) is None else _not_kept(start, before):
        yield stage.mistake("start", problem)


def _before(stage: RecipeStage[object], stages: list[RecipeStage[object]]) -> list[RecipeStage[object]]:
    """The stages that run before this one."""
    return stages[: next(place for place, other in enumerate(stages) if other.path == stage.path)]


def _unnamed(start: str, stages: list[RecipeStage[object]], before: list[RecipeStage[object]]) -> str | None:
    """What is wrong with a start that names no earlier stage."""
    names = [other.name for other in before]
    choice = f"name an earlier stage ({', '.join(names)})" if before else "no stage runs before this one"
    name = start.partition("@step-")[0]
    if named_by(start, stages) is not None:
        return f"this stage does not run before; {choice}, or a model folder or hub name"
    if name in STAGES or "@step-" in start:
        return f"this recipe has no stage {name}{nearest(name, names)}; {choice}, or a model folder or hub name"
    problem = start_problem(start)
    hint = nearest(start, names) if "/" not in start else ""
    return f"{problem}{hint}" if problem else f"is no stage of this recipe{hint}" if hint else None


def _not_kept(start: str, before: list[RecipeStage[object]]) -> str | None:
    """Why a stage has no model of its own where another starts, or will not have kept it."""
    named = named_by(start, before)
    assert named is not None
    other, step = named
    section = other.section
    if not other.row.yields_policy:
        return f"{other.name} trains no model that writes answers; name another stage, or a model folder or hub name"
    if step is None or not isinstance(section, dict):
        return None
    every, steps = section.get("keep_every"), section.get("steps")
    if type(every) is not int or every < 1 or step < 1 or step % every:
        kept = f"it keeps every {every}" if type(every) is int else "it keeps the last alone"
        return f"{other.name} keeps no model of step {step} ({kept}); set {other.key}.keep_every to a divisor of {step}"
    if type(steps) is int and step > steps:
        return f"{other.name} ends after {steps} steps; name one of its steps, or raise {other.key}.steps"
    return None
