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

from tests.samples import OneAnHour, make_stage
from tulu.cli import app
from tulu.config.job import Job
from tulu.config.schema import Recipe, Sft
from tulu.errors import TrainingError
from tulu.model.parallel import Parallel
from tulu.train import energy as energy_module
from tulu.train import measured as measured_module
from tulu.train.energy import UNMETERED, EnergyMeter
from tulu.train.ledger import read_entry, read_ledger
from tulu.train.measured import energy_before, measured, on_record
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
    until = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left


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
    again = CliRunner().invoke(app, ["sft", "r.yaml", f"model={tiny_model('olmo2')}", "--fresh"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    first, second = sorted(read_ledger([Path("runs")]), key=lambda entry: entry.name, reverse=True)
    assert (first.name, first.state) == ("r/sft, attempt 1", "finished, started over")
    assert first.kwh == pytest.approx(energy["kwh"])
    assert (second.name, second.state) == ("r/sft", "finished")
    assert first.phases["training"] > 0.5
    assert first.seconds > 0


def test_what_a_session_took_that_failed_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sessions end before a checkpoint, the third counts their energy too."""
    monkeypatch.setattr(measured_module, "EnergyMeter", OneAnHour)
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

    last = 0.0
    """When it was last read."""

    def __init__(self, output_handlers: list[Any], **_: Any) -> None:
        self.output, self._hardware = output_handlers[0], ["GPU(counter)"]

    def start(self) -> None:
        time.sleep(0.5)
        self.began = time.perf_counter()

    def flush(self) -> None:
        SlowTracker.last = time.perf_counter()
        seconds = SlowTracker.last - self.began
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
    hours = (SlowTracker.last - began) / 3600
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


def test_what_a_session_took_that_was_killed_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed outright, before there was a checkpoint: what is on the disk then is what the meter last gave away."""
    monkeypatch.setattr(measured_module, "EnergyMeter", OneAnHour)
    stage = make_stage(Sft, data="rows.jsonl")
    job = Job(Recipe.model_validate({"name": "r", "model": "m", "sft": stage}), "sft", tmp_path / "r" / "sft", "m")
    for session in (1, 2, 3):
        run = Run(job, Parallel(stage))
        run.resume()
        with run.interruptible():
            OneAnHour.last.tick()
            on_disk = (run.path / "energy.json").read_text()
        # The test goes on here, where a killed process would not.
        (run.path / "energy.json").write_text(on_disk)
        (run.path / "manifest.json").write_text("{}")
        assert read_entry(run.path).kwh == session


def test_a_meter_gives_away_what_it_measured_while_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_module, "OfflineEmissionsTracker", SlowTracker)
    monkeypatch.setattr(energy_module, "KEEP_EVERY", 0.05)
    seen = []
    with measured(tmp_path, anew=False) as meter:
        for _ in range(2):
            time.sleep(0.6)
            seen.append(energy_before(tmp_path)["kwh"])
    assert 0 < seen[0] < seen[1] <= meter.energy["kwh"] == energy_before(tmp_path)["kwh"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"energy": 3}', '{"energy": {"kwh": "x"}}', '{"energy": {"cpu_kwh": NaN}}'])
def test_a_damaged_record_is_begun_anew(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_module, "EnergyMeter", OneAnHour)
    (tmp_path / "energy.json").write_text(damage)
    with measured(tmp_path, anew=False) as meter:
        pass
    assert meter.energy["kwh"] == 1.0


def test_the_log_probs_of_the_reference_are_among_what_dpo_takes(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One meter for the reference and one for the steps, each of 1 kWh on top of what was before."""
    monkeypatch.setattr(measured_module, "EnergyMeter", OneAnHour)
    monkeypatch.chdir(tmp_path)
    question = {"role": "user", "content": "1+1"}
    sides = {side: [question, {"role": "assistant", "content": text}] for side, text in (("chosen", "2"), ("rejected", "3"))}
    Path("rows.jsonl").write_text((json.dumps(sides) + "\n") * 4)
    Path("r.yaml").write_text(RECIPE.replace("sft:", "dpo:"))
    done = CliRunner().invoke(app, ["dpo", "r.yaml", f"model={tiny_model('olmo2')}"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert json.loads(Path("runs/r/dpo/manifest.json").read_text())["energy"]["kwh"] == 2.0


@pytest.mark.parametrize("energy", [{"kwh": None}, {"kwh": "much"}, {"kwh": True}, {"kwh": -1.0}, {"kwh": 3.0, "cpu_kwh": []}])
def test_a_damaged_record_counts_as_none_and_the_others_stand(energy: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"energy": energy}))
    assert on_record(tmp_path, {}) == {}
    assert on_record(tmp_path, {"kwh": 2.0}) == {"kwh": 2.0}
    (tmp_path / "manifest.json").write_text(json.dumps({"energy": {"kwh": 4.0}}))
    assert on_record(tmp_path, energy) == {"kwh": 4.0}
