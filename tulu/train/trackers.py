"""Where the figures of a run go besides its folder: TensorBoard, W&B, MLflow or Trackio, through Accelerate's classes.

A run that resumes goes on in the same run of its tracker. Who calls these classes, and what becomes of one that fails, stands in
tracking.py.
"""

import logging
import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tulu.config.job import Job

log = logging.getLogger("tulu")

PROJECT = "tulu"
"""The project, or the experiment, in which the runs of all recipes stand unless the tracker's own variable names another."""
TABLE = "samples"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run."""

    name: str
    """The run as people know it: NAME/STAGE."""
    group: str
    """The recipe."""
    stage: str
    folder: Path
    step: int
    """The step that it begins behind: 0 in a new run."""
    settings: Mapping[str, Any]
    """The recipe of the stage, as plain values."""
    commit: str | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    """What earlier sessions called it, by tracker."""

    @classmethod
    def of(cls, job: Job, step: int, settings: Mapping[str, Any], manifest: Mapping[str, Any]) -> "RunFacts":
        """Of a run that goes on behind a step, with what its manifest says."""
        name, found = job.recipe.name, manifest.get("trackers", {})
        return cls(f"{name}/{job.folder.name}", name, job.stage, job.folder, step, settings, manifest.get("commit"), found)

    @property
    def is_new(self) -> bool:
        """Whether the run begins here, so that it is described."""
        return self.step == 0


class Tracker(Protocol):
    """One tracker. Only the thread of `Trackers` calls it."""

    id: str | None
    """What a later session needs to go on in the same run."""

    def figures(self, step: int, values: Mapping[str, float]) -> None: ...

    def table(self, step: int, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in the run's own folder, tensorboard/; a resumed run hides what it does again."""

    id: str | None = None

    def __init__(self, facts: RunFacts) -> None:
        from accelerate.tracking import TensorBoardTracker

        purge = {} if facts.is_new else {"purge_step": facts.step + 1}
        self.tracker = TensorBoardTracker("tensorboard", logging_dir=facts.folder, **purge)
        self.tracker.start()
        if facts.is_new:
            self.tracker.store_init_configuration(flat({"commit": facts.commit, **facts.settings}))
            self.tracker.log({"recipe": _as_code(facts.settings), "commit": str(facts.commit)}, step=0)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.tracker.log(dict(values), step=step)

    def table(self, step: int, rows: Sequence[Row]) -> None:
        columns = list(rows[0])
        lines = [columns, ["---"] * len(columns), *([_as_cell(row[name]) for name in columns] for row in rows)]
        self.tracker.log({TABLE: "\n".join(f"| {' | '.join(line)} |" for line in lines)}, step=step)

    def close(self) -> None:
        self.tracker.finish()


class WandB:
    """Weights & Biases, also offline (WANDB_MODE=offline), in the folder of the run."""

    def __init__(self, facts: RunFacts) -> None:
        from accelerate.tracking import WandBTracker

        self.id: str | None = facts.ids.get("wandb") or uuid.uuid4().hex[:8]
        self.tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT") or PROJECT,
            id=self.id,
            resume="allow",
            name=facts.name,
            group=facts.group,
            job_type=facts.stage,
            dir=str(facts.folder),
            # The bar of a terminal is no log.
            settings={"console": "off", "silent": True},
        )
        self.tracker.start()
        self.tracker.store_init_configuration({"commit": facts.commit, **facts.settings})
        # Steps are a figure like others: W&B's own counter never goes back, as a run does that resumes.
        self.tracker.tracker.define_metric("step")
        self.tracker.tracker.define_metric("*", step_metric="step")
        if not self.tracker.tracker.offline:
            log.info("tracker: %s", self.tracker.tracker.url)

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.tracker.log({"step": step, **values})

    def table(self, step: int, rows: Sequence[Row]) -> None:
        import wandb

        columns: list[Any] = list(rows[0])
        # A column of a table has one type, and a score may be missing.
        data: list[Any] = [[str(row[name]) if name != "score" else row[name] for name in columns] for row in rows]
        self.tracker.log({"step": step, TABLE: wandb.Table(columns=columns, data=data)})

    def close(self) -> None:
        self.tracker.finish()


class MLflow:
    """MLflow, on the server of MLFLOW_TRACKING_URI, or in a file of the working folder."""

    def __init__(self, facts: RunFacts) -> None:
        from accelerate.tracking import MLflowTracker

        self.tracker = MLflowTracker(PROJECT, run_id=facts.ids.get("mlflow"), run_name=facts.name, tags={"recipe": facts.group})
        self.tracker.start()
        self.id: str | None = self.tracker.tracker.info.run_id
        if facts.is_new:
            import mlflow

            settings = {"commit": facts.commit, **facts.settings}
            mlflow.log_dict(settings, "recipe.yaml")
            # It takes no long texts as parameters, such as a mix of many data sets.
            self.tracker.store_init_configuration(
                {name: value for name, value in flat(settings).items() if len(str(value)) < 500}
            )

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        # Its names have no @, as in pass@8.
        self.tracker.log({re.sub(r"[^\w\-./ ]", "_", name): value for name, value in values.items()}, step=step)

    def table(self, step: int, rows: Sequence[Row]) -> None:
        import mlflow

        columns = {name: [None if row[name] is None else str(row[name]) for row in rows] for name in rows[0]}
        mlflow.log_table({"step": [step] * len(rows), **columns}, f"{TABLE}.json", run_id=self.id)

    def close(self) -> None:
        self.tracker.finish()


class Trackio:
    """Trackio, whose runs stand in a database on this machine."""

    def __init__(self, facts: RunFacts) -> None:
        from accelerate.tracking import TrackioTracker

        self.id: str | None = facts.ids.get("trackio") or f"{facts.name.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        settings = flat({"commit": facts.commit, **facts.settings})
        self.tracker = TrackioTracker(PROJECT, name=self.id, group=facts.group, resume="allow", config=settings, embed=False)
        self.tracker.start()

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.tracker.log(dict(values), step=step)

    def table(self, step: int, rows: Sequence[Row]) -> None:
        import pandas
        import trackio

        self.tracker.log({TABLE: trackio.Table(dataframe=pandas.DataFrame([dict(row) for row in rows]))}, step=step)

    def close(self) -> None:
        self.tracker.finish()


TRACKERS: Mapping[str, Callable[[RunFacts], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""How each tracker of a recipe starts."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Plain values under dotted names; lists and nulls as texts."""
    found: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def _as_code(values: Mapping[str, Any]) -> str:
    """Settings as a block of YAML, in which every line is indented, as Markdown wants it."""
    import yaml

    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return "\n".join(f"    {line}" for line in text.splitlines())


def _as_cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", "<br>")
