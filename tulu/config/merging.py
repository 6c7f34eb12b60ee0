"""The section `merge` of a recipe: which models become one, and where each of them lies."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, model_validator

from tulu.config.parts import Section
from tulu.errors import RecipeError


class MergedModel(Section):
    """One of the models that are merged: a folder or a hub name, or what a stage of this or of another run trained."""

    name: str | None = None
    """Folder or hub name of the model; give either name or stage."""
    revision: str | None = None
    """Commit or tag of a model on the hub."""
    stage: str | None = None
    """Stage whose model it is, such as sft."""
    run: str | None = None
    """Name of the other run, beside this one under --runs, that trained the stage; null is this run."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.name is None) == (self.stage is None):
            raise ValueError("give exactly one of name (a folder or a hub name) and stage (what a run trained, such as sft)")
        if self.name is None and self.revision is not None:
            raise ValueError("revision belongs to a name on the hub; remove it")
        if self.stage is None and self.run is not None:
            raise ValueError("run belongs to stage; add stage: sft, or remove it")
        return self

    def place(self, recipe: str, runs: Path) -> str:
        """The folder or hub name of the model, for the run of the recipe of this name."""
        if self.name is not None:
            return self.name
        return str(runs / (self.run or recipe) / str(self.stage) / "model")


class Merge(Section):
    """The weighted mean of several models of one architecture, weight by weight."""

    models: Annotated[tuple[MergedModel, ...], Field(min_length=2, strict=False)]
    """The models: entries {name, revision}, {stage} for a stage of this run, or {stage, run} for one of another run. All but the
    weights, such as configuration and tokenizer, is that of the first."""
    weights: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] | None = None
    """A weight for each model; they are divided by their sum. null weighs all alike."""
    released_values: dict[str, Any] = Field(default_factory=dict)
    """What the original merge set and nothing here reads, under its own names."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each model, which add up to 1."""
        weights = self.weights or (1.0,) * len(self.models)
        return tuple(weight / sum(weights) for weight in weights)


def require_models(merge: Merge | None, recipe: str, runs: Path, own: bool) -> None:
    """RecipeError where a model of another run is not there, or with `own` one of this run.

    It is told before the stages of this run take their hours.
    """
    for model in merge.models if merge is not None else ():
        if own or model.run not in (None, recipe):
            require(model, recipe, runs)


def require(model: MergedModel, recipe: str, runs: Path) -> None:
    """RecipeError where the model that a stage trained is not there."""
    if model.stage is None or (folder := Path(model.place(recipe, runs))).is_dir():
        return
    name = "" if model.run is None else f" name={model.run}"
    differs = "" if name == "" else ", with the fields in which that run differs"
    begun = "has not finished" if folder.parent.is_dir() else "was not run"
    raise RecipeError(
        f"merge: {folder}: no such model, {folder.parent} {begun}; run `tulu {model.stage} RECIPE{name}` first{differs}"
    )
