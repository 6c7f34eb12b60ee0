"""Modules in place of mlflow and trackio where they are not installed: they take what the real ones take, and refuse as much."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

NAMES = re.compile(r"[\w\-./: ]+")
"""What MLflow allows in the names of metrics and parameters (mlflow/utils/validation.py)."""


@dataclass
class KeptRun:
    """What a run was given."""

    project: str
    name: str
    group: str
    settings: dict[str, Any] = field(default_factory=dict)
    figures: list[tuple[int, str, float]] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    sessions: int = 0
    open: bool = False


class FakeMLflow(ModuleType):
    """A server with experiments and runs; one run is active at a time."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, KeptRun] = {}
        self.active: str | None = None
        limits = SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        self.utils = SimpleNamespace(validation=limits)

    def search_experiments(self, filter_string: str) -> list[Any]:
        """Those of one name."""
        found = re.fullmatch(r"name = '(.*)'", filter_string)
        assert found is not None
        return [SimpleNamespace(experiment_id=key) for key, name in self.experiments.items() if name == found[1]]

    def create_experiment(self, name: str, artifact_location: str | None, tags: Any) -> str:
        """A new one; two of one name are an error."""
        assert name not in self.experiments.values(), "RESOURCE_ALREADY_EXISTS"
        self.experiments[key := str(len(self.experiments) + 1)] = name
        return key

    def start_run(self, run_id: str | None, experiment_id: str, run_name: str, tags: Mapping[str, str], **_: Any) -> Any:
        """A new run, or one that is there and goes on."""
        assert self.active is None, "a run is active already"
        if run_id is None:
            run_id = f"run-{len(self.runs) + 1}"
            self.runs[run_id] = KeptRun(self.experiments[experiment_id], run_name, tags["recipe"])
        assert run_id in self.runs, f"RESOURCE_DOES_NOT_EXIST: {run_id}"
        self.active = run_id
        self.runs[run_id].sessions += 1
        self.runs[run_id].open = True
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def end_run(self) -> None:
        """Nothing is active behind it."""
        self._run().open = False
        self.active = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """At most a hundred at once, none twice with another value."""
        assert len(params) <= 100
        for name, value in params.items():
            assert NAMES.fullmatch(name), f"INVALID_PARAMETER_VALUE: {name}"
            assert len(str(value)) <= 500
            assert self._run().settings.setdefault(name, str(value)) == str(value), f"{name} cannot be changed"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers under allowed names."""
        for name, value in metrics.items():
            assert NAMES.fullmatch(name), f"INVALID_PARAMETER_VALUE: {name}"
            assert isinstance(value, float | int)
            self._run().figures.append((step, name, float(value)))

    def log_dict(self, dictionary: Mapping[str, Any], artifact_file: str) -> None:
        """A file of the run."""
        self._run().files[artifact_file] = dictionary

    def log_table(self, data: Mapping[str, list[Any]], artifact_file: str, run_id: str) -> None:
        """Rows, behind those that the file has."""
        assert artifact_file.endswith(".json")
        assert len({len(column) for column in data.values()}) == 1
        rows = self.runs[run_id].rows
        rows += [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]

    def _run(self) -> KeptRun:
        assert self.active is not None, "no run is active"
        return self.runs[self.active]


class TrackioRun:
    """A run that is open."""

    def __init__(self, kept: KeptRun) -> None:
        self.kept = kept
        kept.open = True
        kept.sessions += 1

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Numbers, or a table."""
        assert self.kept.open
        for name, value in values.items():
            if isinstance(value, TrackioTable):
                assert name == "samples"
                self.kept.rows += [{"step": step, **row} for row in value.rows]
            else:
                assert isinstance(value, float | int)
                self.kept.figures.append((step, name, float(value)))

    def finish(self) -> None:
        """Closed."""
        self.kept.open = False


class TrackioTable:
    """Rows of a data frame."""

    def __init__(self, dataframe: Any) -> None:
        self.rows = dataframe.to_dict("records")


class FakeTrackio(ModuleType):
    """A data base of projects and runs."""

    Table = TrackioTable

    def __init__(self) -> None:
        super().__init__("trackio")
        self.runs: dict[str, KeptRun] = {}

    def init(self, project: str, name: str, group: str, resume: str, config: Mapping[str, Any], embed: bool) -> TrackioRun:
        """A new run, or one that is there and goes on, as `resume` allows."""
        assert resume in ("never", "allow", "must")
        assert not embed, "nothing is shown in a page of its own"
        assert name not in self.runs or resume != "never"
        kept = self.runs.setdefault(name, KeptRun(project, name, group))
        assert all(isinstance(value, str | int | float | bool) for value in config.values())
        kept.settings.update(config)
        return TrackioRun(kept)
