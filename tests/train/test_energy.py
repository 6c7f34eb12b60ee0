"""Energy of a run: it adds up over sessions, says what is estimated, and leaves no thread behind."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.samples import make_stage
from tulu.cli import app
from tulu.config.job import Job
from tulu.config.schema import Recipe, Sft
from tulu.errors import TrainingError
from tulu.model.parallel import Parallel
from tulu.train import energy as energy_module
from tulu.train import run as run_module
from tulu.train.energy import UNMETERED, EnergyMeter
from tulu.train.run import Run

HOURS = 1 / 3600
RECIPE = "name: r\nsft: {data: rows.jsonl, max_length: 64, learning_rate: 1.0e-4, batch: 4, steps: 3, save_every: 1}\n"


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_energy_grows_and_is_that_of_a_computer() -> None:
    began = time.monotonic()
    meter = EnergyMeter({})
    work(0.5)
    first = meter.read()
    work(1.0)
    last = meter.stop()
    hours = (time.monotonic() - began) * HOURS
    assert 0 < first["kwh"] < last["kwh"]
    assert last["kwh"] == pytest.approx(last["cpu_kwh"] + last["gpu_kwh"] + last["ram_kwh"])
    assert 0.001 < last["kwh"] / hours < 20, "kilowatts of a machine: more than a watt, less than a rack"
    assert all("RAPL" not in source.upper() for source in last["estimated"])


def test_earlier_sessions_are_added() -> None:
    found = EnergyMeter({"cpu_kwh": 2.0, "gpu_kwh": 3.0, "ram_kwh": 4.0}).stop()
    assert 9.0 < found["kwh"] < 9.01
    assert found["gpu_kwh"] >= 3.0


def test_its_threads_end() -> None:
    before = set(threading.enumerate())
    EnergyMeter({}).stop()
    time.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if thread not in before and thread.is_alive()]


def test_the_manifest_of_a_run_holds_it(tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}] * 8
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("r.yaml").write_text(RECIPE)
    done = CliRunner().invoke(app, ["sft", "r.yaml", f"model={tiny_model('olmo2')}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    energy = json.loads(Path("runs/r/sft/manifest.json").read_text())["energy"]
    assert energy["kwh"] > 0
    state = json.loads(Path("runs/r/sft/checkpoints/step-000003/state.json").read_text())["energy"]
    assert 0 < state["kwh"] <= energy["kwh"]


class OneAnHour:
    """In place of the meter: every session takes 1 kWh of the GPUs."""

    def __init__(self, before: dict[str, float]) -> None:
        self.kwh = before.get("kwh", 0.0) + 1.0

    def read(self) -> dict[str, float]:
        return {"kwh": self.kwh, "gpu_kwh": self.kwh, "cpu_kwh": 0.0, "ram_kwh": 0.0}

    stop = read


def test_what_a_session_took_that_failed_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions end before a checkpoint, the third counts their energy too."""
    monkeypatch.setattr(run_module, "EnergyMeter", OneAnHour)
    stage = make_stage(Sft, data="rows.jsonl")
    job = Job(Recipe.model_validate({"name": "r", "model": "m", "sft": stage}), "sft", tmp_path / "sft", "m")
    for session in (1, 2, 3):
        run = Run(job, Parallel(stage))
        run.resume()
        with pytest.raises(TrainingError, match="not finite"), run.interruptible():
            raise TrainingError("loss is not finite")
        assert json.loads((tmp_path / "sft" / "manifest.json").read_text())["energy"]["kwh"] == session


class SlowTracker:
    """A machine that takes 100 W of the CPU and 300 W of the GPUs, and a meter of it that is up after half a second."""

    def __init__(self, output_handlers: list[Any], **_: Any) -> None:
        self.output, self._hardware = output_handlers[0], ["GPU(counter)"]

    def start(self) -> None:
        time.sleep(0.5)
        self.began = time.perf_counter()

    def flush(self) -> None:
        seconds = time.perf_counter() - self.began
        hours = seconds / 3600
        parts = {"cpu_energy": 0.1 * hours, "gpu_energy": 0.3 * hours, "ram_energy": 0.0}
        self.output.out(SimpleNamespace(duration=seconds, **parts), None)

    stop = flush


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_the_seconds_before_the_meter_answers_count_at_the_power_it_measures_first(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy_module, "OfflineEmissionsTracker", SlowTracker)
    began = time.perf_counter()
    meter = EnergyMeter({"gpu_kwh": 1.0})
    time.sleep(seconds)
    found = meter.stop()
    hours = (time.perf_counter() - began) / 3600
    assert hours * 3600 >= 0.6, "a stage that is over before waits until there is a power"
    assert found["cpu_kwh"] == pytest.approx(0.1 * hours, rel=0.05)
    assert found["gpu_kwh"] - 1.0 == pytest.approx(0.3 * hours, rel=0.05)
    assert found["estimated"] == [UNMETERED]


def test_what_the_first_seconds_took_is_settled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_module, "OfflineEmissionsTracker", SlowTracker)
    meter = EnergyMeter({})
    read = []
    for _ in range(4):
        time.sleep(0.25)
        read.append(meter.read()["kwh"])
    meter.stop()
    assert read == sorted(read)
