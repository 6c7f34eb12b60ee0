"""What a model's name on the command line may stand for beside a folder or a hub name: a run, one of its stages, or a recipe.

A folder of that name comes first, then the run (NAME or NAME/STAGE), then the built-in recipe, then the hub.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tulu.config.job import MODEL
from tulu.config.load import built_in, is_built_in, load_recipe
from tulu.config.locate import policy_problem
from tulu.errors import RecipeError, first_few, nearest


@dataclass(frozen=True)
class Named:
    """A model that was named, and the chat template and revision that its recipe gives it."""

    model: str
    template: str | None = None
    revision: str | None = None


def named_model(name: str, runs: Path) -> Named:
    """The model that a name stands for. Raises RecipeError where it is a run without a model that answers."""
    given, run = Path(name), runs / name
    if any((given / file).is_file() for file in ("config.json", "adapter_config.json")):
        return Named(name)
    for place in (given, run):
        if models := _models(place):
            return Named(_newest(models, name, place))
    if not given.exists() and run.is_dir():
        return Named(_newest([], name, run))
    if is_built_in(name):
        recipe = load_recipe(name)
        if models := _models(runs / recipe.name):
            return Named(_newest(models, name, runs / recipe.name))
        if recipe.model is None:
            raise RecipeError(f"{name}: the recipe makes its model, and has none in {runs / recipe.name}; tulu run {name} first")
        return Named(recipe.model, recipe.template, recipe.revision)
    return Named(name)


@contextmanager
def naming(name: str, runs: Path) -> Iterator[Named]:
    """The model that a name stands for, while it is used.

    A name that is nothing here is taken for one of the hub; where that gives no model either, the error says what else the name
    may have been meant for.
    """
    named = named_model(name, runs)
    try:
        yield named
    except RecipeError as error:
        of_the_name = named == Named(name) and str(error).startswith(f"{name}: ")
        if of_the_name and not Path(name).exists() and not name.startswith((".", "/", "~")):
            raise RecipeError(f"{error}\n{other_names(name, runs)}") from error
        raise


def other_names(name: str, runs: Path) -> str:
    """What else a name may be that is neither a folder here nor on the hub: a run, one of its stages, or a built-in recipe."""
    there = runs_in(runs)
    held = f"{runs} holds {first_few([run for run in there if '/' not in run])}" if there else f"{runs} holds no run"
    near = nearest(name, [*there, *(recipe.stem for recipe in built_in())])
    return f"It may also be a run or RUN/STAGE ({held}), or a built-in recipe (tulu recipes lists them){near}"


def runs_in(runs: Path) -> list[str]:
    """The names of the runs in a folder and of their stages, such as mine and mine/sft."""
    stages = sorted(file.parent for file in runs.glob("*/*/recipe.yaml"))
    return [*dict.fromkeys(stage.parent.name for stage in stages), *(f"{stage.parent.name}/{stage.name}" for stage in stages)]


def _models(place: Path) -> list[Path]:
    """The models of a run, or of one of its stages."""
    return [file.parent for pattern in (MODEL, f"*/{MODEL}") for file in place.glob(f"{pattern}/config.json")]


def _newest(models: Sequence[Path], name: str, run: Path) -> str:
    """The model that was finished last, reward models left out."""
    in_order = sorted(models, key=lambda folder: (folder / "config.json").stat().st_mtime)
    answering = [folder for folder in in_order if policy_problem(str(folder)) is None]
    if not answering:
        raise RecipeError(f"{name}: the run {run} has no model that answers yet; finish a stage first (tulu run, tulu sft)")
    return str(answering[-1])
