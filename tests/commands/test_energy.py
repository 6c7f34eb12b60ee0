"""`tulu energy` prints what it counted, by which constants, and refuses what it does not know."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tulu.cli import app


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "mine" / "sft"
    folder.mkdir(parents=True)
    parts = {"kwh": 48.0, "gpu_kwh": 48.0, "cpu_kwh": 0.0, "ram_kwh": 0.0, "estimated": ["RAM()"]}
    facts = {"energy": parts, "seconds": 36_000, "finished": True, "hardware": {"accelerators": ["H100"] * 8}}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return tmp_path / "runs"


def test_figures_and_their_sources(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    out = runs.parent / "new" / "ledger.json"
    done = CliRunner().invoke(app, ["energy", str(runs), "--carbon", "0.332", "--final", "mine", "--out", str(out)])
    assert done.exit_code == 0, done.output
    for word in ("83.5", "27.7", "107.7", "1.06", "arXiv 2605.01158", "carbon as given", "from load and size: RAM\n"):
        assert word in done.output
    content = json.loads(out.read_text())
    assert content["totals"]["final"] == content["totals"]["all"]
    assert content["stages"][0]["gpu_hours"] == 80.0


def test_no_word_of_the_tables_is_cut_in_a_pipe(runs: Path) -> None:
    done = CliRunner().invoke(app, ["energy", str(runs)])
    assert "…" not in done.output
    for word in ("mine/sft", "GPU-hours", "kWh by time", "GPU kWh", "development"):
        assert word in done.output


def rewrite(runs: Path, **facts: Any) -> None:
    file = runs / "mine" / "sft" / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


def told(words: list[str], runs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """What the command prints, and what it writes."""
    monkeypatch.setenv("COLUMNS", "200")
    out = runs.parent / "ledger.json"
    done = CliRunner().invoke(app, ["energy", str(runs), *words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return done.output, json.loads(out.read_text())


def test_the_factor_on_gpus_is_not_one_on_what_cpus_took(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """48 kWh of GPUs, 6 of CPUs, 4 of memory: 58 measured, and 83.5 in the data centre, as without the other two."""
    rewrite(runs, energy={"kwh": 58.0, "gpu_kwh": 48.0, "cpu_kwh": 6.0, "ram_kwh": 4.0})
    text, content = told([], runs, monkeypatch)
    total = content["totals"]["all"]
    assert (total["measured_kwh"], total["gpu_kwh"], round(total["facility_kwh"], 2)) == (58.0, 48.0, 83.52)
    assert "of the energy of GPUs alone" in text
    assert told(["--pue", "2"], runs, monkeypatch)[1]["totals"]["all"]["facility_kwh"] == 96.0
    rewrite(runs, energy={"kwh": 10.0, "gpu_kwh": 0.0, "cpu_kwh": 6.0, "ram_kwh": 4.0})
    text, content = told([], runs, monkeypatch)
    assert round(content["totals"]["all"]["facility_kwh"], 2) == 17.4
    assert "GPUs alone" not in text


def test_a_gpu_whose_making_nobody_published_is_told_and_can_be_given(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, _ = told([], runs, monkeypatch)
    assert "an hour of an H100: 463 kg" in text
    assert "taken for" not in text
    rewrite(runs, hardware={"accelerators": ["NVIDIA A100-SXM4-80GB"] * 8})
    text, content = told([], runs, monkeypatch)
    assert "taken for NVIDIA A100-SXM4-80GB too" in text
    assert round(content["totals"]["all"]["embodied_kg"], 2) == 1.06
    text, content = told(["--embodied", "0.02", "--embodied-water", "0.01"], runs, monkeypatch)
    assert (content["totals"]["all"]["embodied_kg"], content["totals"]["all"]["embodied_litres"]) == (1.6, 0.8)
    assert "0.02 kg CO2e and 0.01 l an hour of a GPU: as given" in text
    assert "taken for" not in text
    text, content = told(["--embodied", "0.02"], runs, monkeypatch)
    assert (content["totals"]["all"]["embodied_kg"], round(content["totals"]["all"]["embodied_litres"], 2)) == (1.6, 0.23)
    assert "embodied as given; 463 kg" in text


def test_energy_of_each_phase_is_told_by_time(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"step": 1, "seconds": 8.0, "sampling_seconds": 4.0, "share_forward": 0.25}
    (runs / "mine" / "sft" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (runs / "mine" / "evaluate" / "sft").mkdir(parents=True)
    taken = {"kwh": 12.0, "gpu_kwh": 12.0, "cpu_kwh": 0.0, "ram_kwh": 0.0, "seconds": 60.0}
    (runs / "mine" / "evaluate" / "sft" / "energy.json").write_text(json.dumps({"energy": taken, "finished": True}))
    text, content = told([], runs, monkeypatch)
    assert "rollout 24 (50%), training 12 (25%), idle and other 12" in text
    assert "kWh by time: rollout 24 (40%), training 12 (20%), evaluation 12 (20%), idle and other 12 (20%)" in text
    assert content["kwh_by_time"] == {"rollout": 24.0, "training": 12.0, "sync": 0.0, "evaluation": 12.0, "idle and other": 12.0}
    assert "mine/evaluate/sft" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no run lies there"),
        ([".", "--facility", "moon"], "--facility moon"),
        ([".", "--carbon", "-1"], "--carbon"),
        ([".", "--water-off", "nan"], "--water-off"),
        ([".", "--pue", "-1"], "--overhead"),
        ([".", "--embodied", "-1"], "--embodied"),
        ([".", "--embodied-water", "inf"], "--embodied-water"),
        (["runs", "--out", "runs"], "--out runs: is a folder; name a file"),
        (["runs", "--out", "runs/mine/sft/manifest.json/x"], "a file stands where a folder belongs"),
    ],
)
def test_what_is_refused(words: list[str], message: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    done = CliRunner().invoke(app, ["energy", *words])
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output
