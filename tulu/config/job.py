"""From a checked recipe to a Job: where a stage runs and which model it starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.schema import Recipe, TrainStage
from tulu.config.stages import STAGES, TRAINING, Stage, StageName
from tulu.config.yaml_text import read_yaml
from tulu.errors import RecipeError


@dataclass(frozen=True)
class Job:
    """One stage of a recipe, ready to run."""

    recipe: Recipe
    stage: str
    """The stage's name."""
    folder: Path
    """Where its results go: runs/NAME/STAGE."""
    start: str | None
    """The model it starts from, a folder or a hub name; None where the stage makes its own model."""
    fresh: bool = False
    """Whether to start over instead of resuming."""

    @property
    def revision(self) -> str | None:
        """Commit or tag of `start` on the hub, which a recipe states for its base model alone."""
        return self.recipe.revision if self.start == self.recipe.model else None

    @property
    def template(self) -> tuple[str, str | None]:
        """The chat template of the stage, and the hash that it must have."""
        return template_of(self.recipe, dict(self.recipe)[self.stage] if STAGES[self.stage].trains else None)


def template_of(recipe: Recipe, stage: TrainStage | None) -> tuple[str, str | None]:
    """The chat template of a stage's section, and the hash that it must have: the section's own, else the recipe's."""
    if stage is not None and stage.template is not None:
        return stage.template, stage.template_hash
    return recipe.template, recipe.template_hash


def section_of(recipe: Recipe, stage: str) -> Any:
    """The recipe's section of a stage. Raises RecipeError where the recipe has none."""
    sections = dict(recipe)
    if sections[stage] is None:
        present = ", ".join(name for name in STAGES if sections[name] is not None)
        raise RecipeError(f"recipe {recipe.name} has no {stage} section; it has {present or 'none'}: add one")
    return sections[stage]


def stages_of(recipe: Recipe, only: str | None = None) -> list[tuple[Stage, TrainStage]]:
    """The training stages that a recipe has, in order, each with its section; with `only`, that one alone."""
    sections = dict(recipe)
    return [(stage, sections[stage.name]) for stage in TRAINING if sections[stage.name] and only in (None, stage.name)]


def folders_of_run(recipe: Recipe, runs: Path) -> list[Path]:
    """The folders in which `tulu run` writes: one for each stage of the recipe."""
    return [runs / recipe.name / name for name in STAGES if dict(recipe)[name] is not None]


def missing(recipe: Recipe, stage: str, runs: Path) -> list[StageName]:
    """The earlier stages that must run before this one because nothing else gives it a model to start from, in order."""
    if STAGES[stage].makes_model or _start(recipe, stage, runs) is not None:
        return []
    sections = dict(recipe)
    previous = next((earlier for earlier in STAGES[stage].starts_from if sections[earlier] is not None), None)
    return [] if previous is None else [*missing(recipe, previous, runs), previous]


def make_job(recipe: Recipe, stage: str, runs: Path, fresh: bool = False) -> Job:
    """The job of a stage. Raises RecipeError where it has no model to start from, or one of another origin.

    A stage starts from its `start`, else from the earlier stage's model in the run folder, else from its `released`
    checkpoint, else from the recipe's model.
    """
    row = STAGES[stage]
    if row.trains:
        section_of(recipe, stage)
    start = None if row.makes_model else _start(recipe, stage, runs)
    if start is None and not row.makes_model:
        earlier = " or ".join(f"`tulu {name}`" for name in row.starts_from if dict(recipe)[name] is not None)
        cure = f"run {earlier} first, or set {stage}.start" if earlier else f"set model or {stage}.start"
        raise RecipeError(f"{stage} has no model to start from: nothing in {runs / recipe.name}; {cure}")
    return Job(recipe, stage, runs / recipe.name / stage, start, fresh)


def _start(recipe: Recipe, stage: str, runs: Path) -> str | None:
    row = STAGES[stage]
    section: TrainStage | None = dict(recipe)[stage] if row.trains else None
    if section is not None and section.start:
        return section.start
    unfinished = None
    start = (section.released if section is not None else None) or recipe.model
    for earlier in row.starts_from:
        folder = runs / recipe.name / earlier
        if (folder / "model").is_dir():
            _check_origin(recipe, stage, folder)
            start = str(folder / "model")
            break
        unfinished = folder if unfinished is None and (folder / "recipe.yaml").is_file() else unfinished
    if row.trains and start is not None and unfinished is not None:
        # Whoever began an earlier stage expects its model here, and would not notice that another one was trained.
        raise RecipeError(
            f"{unfinished} was begun and has no model yet, so {stage} would start from {start}; "
            f"bring `tulu {unfinished.name}` to its end first, or set {stage}.start={start}"
        )
    return start


def _check_origin(recipe: Recipe, stage: str, folder: Path) -> None:
    """Refuse a model that an earlier stage made from another base model; the stage's recipe.yaml says which one that was."""
    record = folder / "recipe.yaml"
    if not record.is_file():
        raise RecipeError(
            f"{folder}/model has no recipe.yaml beside it, so its origin is unknown; set {stage}.start={folder}/model"
        )
    earlier = read_yaml(record).value
    for key in ("model", "revision"):
        there, here = earlier.get(key), dict(recipe)[key]
        if there != here:
            raise RecipeError(
                f"{folder}/model was made with {key} {there}, but this recipe says {key} {here}; "
                f"run `tulu {folder.name}` again with --fresh, give this run another name (name=...), "
                f"or set {stage}.start={folder}/model"
            )
