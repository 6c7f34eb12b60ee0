"""What lies in the folder of a run: its stages in the order in which they were trained, and what was measured of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu.config.job import START
from tulu.config.stages import STAGES, TRAINING
from tulu.errors import RecipeError, first_few, nearest
from tulu.intervals import wilson
from tulu.report.reading import Faults, Object, number, pair, part, read_json, read_lines, read_yaml

_SIGNS = ("manifest.json", "recipe.yaml", "metrics.jsonl")
"""Files by which the folder of a stage is known."""
LOOKS, SHOWN_ANSWERS = 3, 3
"""Looks at a stage that are shown, and sample answers of each."""
_ORDER = {name: place for place, name in enumerate(STAGES)}

Measured = tuple[float, tuple[float, float] | None]
"""A share and its interval, which may be unknown."""


@dataclass
class ReportedStage:
    """One stage of a run, as far as its files can be read."""

    name: str
    folder: Path
    kind: str
    """The row of the stage table: sft, dpo, rlvr …; other where no file says it."""
    recipe: Object
    manifest: Object
    status: Object
    """What an RLVR stage last said of itself."""
    metrics: list[Object]
    samples: list[Object]
    looks: list[tuple[int, Object]]
    """(step, sample answer) of the last looks at how the training went."""
    results: Object
    """What the evaluation after the stage found."""

    @property
    def section(self) -> Object:
        """The stage's section of its recipe."""
        return part(self.recipe, self.kind)

    @property
    def finished(self) -> bool:
        """Whether the stage came to its end."""
        return self.manifest.get("finished") is True

    @property
    def steps(self) -> int:
        """Optimizer steps that were logged."""
        logged = [value for row in self.metrics if (value := number(row.get("step"))) is not None]
        return int(max(logged, default=number(self.manifest.get("steps")) or 0))

    @property
    def state(self) -> str:
        """Where the stage stands, in words."""
        if self.finished:
            return "finished"
        said = str(self.status.get("state") or "")
        of = f" of {self.status['steps']}" if isinstance(self.status.get("steps"), int) else ""
        told = f": {said}" if said and said != "ended" else ""
        return f"not finished, {self.steps}{of} steps{told}" if self.steps else f"begun, no step yet{told}"

    @property
    def accuracy(self) -> Measured | None:
        """Accuracy on the recipe's held-out task, with its interval."""
        return accuracy_of(self.results)

    @property
    def pairs_right(self) -> Measured | None:
        """Share of the held-out pairs that a reward model ranks right, with its interval."""
        share, pairs = number(self.manifest.get("held_out_accuracy")), number(self.manifest.get("held_out_pairs"))
        return None if share is None else (share, wilson(share, int(pairs)) if pairs else None)

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens over the seconds of all steps."""
        pairs = [(number(row.get("tokens")), number(row.get("seconds"))) for row in self.metrics]
        whole = [(tokens, seconds) for tokens, seconds in pairs if tokens is not None and seconds is not None]
        seconds = sum(one[1] for one in whole)
        return sum(one[0] for one in whole) / seconds if seconds > 0 else None


@dataclass
class ReportedRun:
    """A run, or one stage of it that was asked for alone."""

    name: str
    folder: Path
    stages: list[ReportedStage]
    start: Object
    """What the evaluation found of the model that the run began with."""
    rewardbench: list[Object]
    """The results of every evaluation on RewardBench of a model of the run."""
    faults: Faults = field(repr=False)


def find_run(named: str, runs: Path) -> Path:
    """The folder of a run or of a stage, by its path or by the run's name. Raises RecipeError where there is none."""
    places = [Path(named), runs / named]
    for place in places:
        if place.is_dir() and (_is_stage(place) or stage_folders(place)):
            return place.resolve()
    known = sorted(path.name for path in runs.iterdir() if _holds_stages(path)) if runs.is_dir() else []
    there = f"{runs} holds {first_few(known)}" if known else f"{runs} holds no run"
    found = next((place for place in places if place.exists()), None)
    if found is not None:
        raise RecipeError(f"{found}: no run and no stage of one (a stage has a {' or '.join(_SIGNS)}); {there}")
    raise RecipeError(f"{named}: there is no such run, neither as a folder nor in {runs}{nearest(named, known)}; {there}")


def stage_folders(folder: Path) -> list[Path]:
    """The folders of a run's stages."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".") and _is_stage(path)]


def _holds_stages(folder: Path) -> bool:
    """Whether a folder is a run; one that may not be read is none that could have been meant."""
    try:
        return folder.is_dir() and bool(stage_folders(folder))
    except OSError:
        return False


def _is_stage(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _SIGNS)


def read_run(folder: Path) -> ReportedRun:
    """Everything that a report shows of a run or of a stage, but its rollouts, of which there may be many."""
    alone = _is_stage(folder)
    parent = folder.parent if alone else folder
    faults = Faults(parent)
    stages = [read_stage(path, faults) for path in ([folder] if alone else stage_folders(folder))]
    name = f"{parent.name}/{folder.name}" if alone else folder.name
    start = {} if alone else read_json(parent / "evaluate" / START / "results.json", faults)
    return ReportedRun(name, folder, _in_order(stages), start, rewardbench_of(parent, stages, faults), faults)


def read_stage(folder: Path, faults: Faults) -> ReportedStage:
    """One stage."""
    recipe = read_yaml(folder / "recipe.yaml", faults)
    named = [name for name in STAGES if name in recipe]
    guessed = [name for name in STAGES if folder.name.partition("-")[0] == name]
    return ReportedStage(
        name=folder.name,
        folder=folder,
        kind=(named or guessed or ["other"])[0],
        recipe=recipe,
        manifest=read_json(folder / "manifest.json", faults),
        status=read_json(folder / "status.json", faults),
        metrics=read_lines(folder / "metrics.jsonl", faults),
        samples=read_lines(folder / "rows.jsonl", faults),
        looks=read_looks(folder, faults),
        results=read_json(folder.parent / "evaluate" / folder.name / "results.json", faults),
    )


def read_looks(folder: Path, faults: Faults) -> list[tuple[int, Object]]:
    """The first sample answers of the last looks, the newest first."""
    steps = {file: file.stem.removeprefix("step-") for file in folder.glob("samples/step-*.jsonl")}
    files = sorted((file for file, step in steps.items() if step.isdigit()), key=lambda file: -int(steps[file]))
    return [(int(steps[file]), row) for file in files[:LOOKS] for row in read_lines(file, faults, SHOWN_ANSWERS)]


def _in_order(stages: Sequence[ReportedStage]) -> list[ReportedStage]:
    """By the stage table; of several of a kind, one that starts from another comes behind it."""
    by_model = {str(stage.folder.parts[-1]): stage for stage in stages}

    def depth(stage: ReportedStage, seen: tuple[str, ...] = ()) -> int:
        start = Path(str(stage.recipe.get("start") or "")).parts
        before = by_model.get(start[-2]) if len(start) > 1 else None
        if before is None or before.kind != stage.kind or before.name in seen:
            return 0
        return 1 + depth(before, (*seen, stage.name))

    return sorted(stages, key=lambda stage: (_ORDER.get(stage.kind, len(_ORDER)), depth(stage), stage.name))


def rewardbench_of(folder: Path, stages: Sequence[ReportedStage], faults: Faults) -> list[Object]:
    """Results of RewardBench in the folder of a run, and beside it those of the run's own models."""
    models = {str(stage.folder.resolve()) for stage in stages}
    found: list[Object] = []
    own = {*folder.glob("*/results.json"), *folder.glob("*/*/results.json"), *folder.glob("*/*/*/results.json")}
    for file in sorted({*own, *folder.parent.glob("rewardbench/*/*/results.json")}):
        content = read_json(file, faults)
        if not part(content, "subsets"):
            continue
        model = str(part(content, "settings").get("model") or "")
        if file in own or any(os.path.abspath(parent) in models for parent in Path(model).parents):
            found.append({**content, "title": f"{_short(model)} on RewardBench {content.get('data', '')}".strip()})
    return found


def _short(model: str) -> str:
    """A model's name without what all models of a machine share."""
    return "/".join(Path(model).parts[-3:]) or "a model"


def is_training(kind: str) -> bool:
    """Whether stages of a kind train a model."""
    return any(stage.name == kind for stage in TRAINING)


def accuracy_of(results: Object) -> Measured | None:
    """The accuracy that an evaluation found, with its interval."""
    accuracy = number(results.get("accuracy"))
    return None if accuracy is None else (accuracy, pair(results.get("ci95")))


def answers_of(run: ReportedRun, name: str, most: int) -> list[dict[str, Any]]:
    """The first answers of the evaluation after a stage, or at the start."""
    return read_lines(run.faults.folder / "evaluate" / name / "answers.jsonl", run.faults, most)
