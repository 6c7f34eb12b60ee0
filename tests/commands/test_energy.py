"""`tulu energy` prints what it counted, by which constants, and refuses what it does not know."""

import json
from pathlib import Path

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
    for word in ("mine/sft", "GPU-hours", "by the learner's time", "development"):
        assert word in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no run lies there"),
        ([".", "--facility", "moon"], "--facility moon"),
        ([".", "--carbon", "-1"], "--carbon"),
        ([".", "--water-off", "nan"], "--water-off"),
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
