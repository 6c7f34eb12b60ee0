"""MLflow and Trackio in a stage: figures, recipe, commit and answers arrive, and a resumed run is the same run.

The packages themselves read them back where they are installed; modules that keep what they are given, always.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.train.fake_trackers import FakeMLflow, FakeTrackio, KeptRun
from tests.train.test_looks import metrics_of
from tests.train.test_trackers import run_twice, tracked
from tulu.train.trackers import MLflow, RunFacts


@dataclass
class Found:
    """What a tracker has of a run, read back."""

    project: str
    name: str
    group: str
    settings: Mapping[str, Any]
    figures: list[tuple[int, str, float]]
    rows: Sequence[Mapping[str, Any]]
    recipe: Mapping[str, Any] | None = None


Read = Callable[[str], Found]


def as_found(run: KeptRun) -> Found:
    assert not run.open, "closed at the end"
    assert run.sessions == 2
    return Found(run.project, run.name, run.group, run.settings, run.figures, list(run.rows), run.files.get("recipe.yaml"))


def mlflow_itself(name: str) -> Found:
    import mlflow

    client = mlflow.MlflowClient()
    run = client.get_run(name)
    history = [(one.step, key, one.value) for key in run.data.metrics for one in client.get_metric_history(name, key)]
    rows = client.load_table(run.info.experiment_id, "samples.json", run_ids=[name]).to_dict("records")
    project = client.get_experiment(run.info.experiment_id).name
    recipe = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/recipe.yaml")
    return Found(project, run.info.run_name, run.data.tags["recipe"], run.data.params, history, rows, recipe)


def trackio_itself(name: str) -> Found:
    from trackio.sqlite_storage import SQLiteStorage

    logs, settings = SQLiteStorage.get_logs("tulu", name), SQLiteStorage.get_run_config("tulu", name)
    own = ("step", "timestamp", "samples")
    figures = [(line["step"], key, value) for line in logs for key, value in line.items() if key not in own]
    rows = [{"step": line["step"], **row} for line in logs if "samples" in line for row in line["samples"]["_value"]]
    return Found("tulu", name, settings["_Group"], settings, figures, rows)


@pytest.fixture(params=["fake", "real"])
def readers(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Read]:
    """How to read each tracker back; what it writes stays in the test's folder."""
    monkeypatch.chdir(tmp_path)
    if request.param == "fake":
        mlflow, trackio = FakeMLflow(), FakeTrackio()
        monkeypatch.setitem(sys.modules, "mlflow", mlflow)
        monkeypatch.setitem(sys.modules, "trackio", trackio)
        return {"mlflow": lambda name: as_found(mlflow.runs[name]), "trackio": lambda name: as_found(trackio.runs[name])}
    if find_spec("mlflow") is None or find_spec("trackio") is None:
        pytest.skip("needs pip install 'tulu[mlflow,trackio]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return {"mlflow": mlflow_itself, "trackio": trackio_itself}


def test_mlflow_and_trackio_have_every_figure_the_recipe_the_commit_and_the_answers(
    readers: dict[str, Read], tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_twice(tracked(tmp_path, tiny_model(), "mlflow", "trackio"), monkeypatch)
    manifest = json.loads((folder / "manifest.json").read_text())
    logged = {
        (line["step"], name): value
        for line in metrics_of(folder)
        for name, value in line.items()
        if name != "step" and value is not None
    }
    for tracker, read in readers.items():
        found = read(manifest["trackers"][tracker])
        assert (found.project, found.group) == ("tulu", "t")
        assert found.name.startswith("t/sft" if tracker == "mlflow" else "t-sft-")
        assert {(step, name) for step, name, _ in found.figures} == set(logged), tracker
        latest = {(step, name): value for step, name, value in found.figures}
        assert latest == pytest.approx(logged)
        assert {"loss", "learning_rate", "eval/nll", "tokens_per_second"} <= {name for _, name in logged}
        assert found.settings["commit"] == str(manifest["commit"])
        assert str(found.settings["sft.learning_rate"]) == "0.003"
        assert [row["step"] for row in found.rows] == [2, 2, 2, 4, 4, 4]
        assert {"task", "id", "prompt", "answer", "score"} <= set(found.rows[0])
        if tracker == "mlflow":
            assert found.recipe is not None
            assert found.recipe["sft"]["learning_rate"] == 0.003, "whole, long texts included"


def test_mlflow_gets_names_that_it_allows_and_no_long_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    mix = {f"field{number}": "x" * (600 if number == 7 else 1) for number in range(250)}
    tracker = MLflow(RunFacts("r/rlvr", "r", "rlvr", tmp_path, 0, {"mix": mix}))
    tracker.figures(1, {"eval/pass@8": 0.5, "solved/a+b": 1.0})
    tracker.table(1, [{"task": "sums", "score": None}, {"task": "sums", "score": 1.0}])
    tracker.close()
    assert tracker.id is not None
    run = fake.runs[tracker.id]
    assert run.figures == [(1, "eval/pass_8", 0.5), (1, "solved/a_b", 1.0)]
    assert len(run.settings) == 250, "the commit, and all but the long one"
    assert run.rows == [{"step": 1, "task": "sums", "score": None}, {"step": 1, "task": "sums", "score": "1.0"}]
