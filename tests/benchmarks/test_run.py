"""The benchmark runs, both sides do the same work, and its JSON has the promised shape."""

import json
import os
from pathlib import Path

import pytest

from benchmarks import pace, run
from benchmarks.material import to_pair
from benchmarks.pace import Ready, Task, Turn
from tests import forked
from tulu.data.messages import read_transcript
from tulu.errors import TuluError

TINY = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
STAGES = ["sft", "dpo", "rm", "grpo"]


@pytest.fixture(scope="module")
def results(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the results of all stages, run by one process that imports TRL once and forks both sides of each."""
    folder = tmp_path_factory.mktemp("results")
    environment = {**os.environ, **run.QUIET, "OMP_NUM_THREADS": "1"}
    process = forked.start(run_all, shared_data, folder, output=folder / "said", environment=environment)
    assert process.wait(timeout=500) == 0, (folder / "said").read_text()[-6000:]
    return folder


def run_all(shared: Path, folder: Path) -> None:
    pace.START = "fork"
    plans = {stage: run.Plan(batch=8 if stage != "grpo" else 2, steps=1, tuned={}) for stage in STAGES}
    # That both sides train the same rows and begin with the same loss is checked by the benchmark itself.
    run.run(plans, shared, 1, folder, TINY)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_beside_trl(stage: str, results: Path) -> None:
    result = json.loads((results / f"{stage}.json").read_text())
    assert result["stage"] == stage
    assert result["batch"] == (16 if stage == "grpo" else 8)
    assert set(result["sides"]) == {"tulu", "trl"}
    for side in result["sides"].values():
        for measure in ("tokens_per_second", "tokens_per_cpu_second"):
            figures = side[measure]
            assert 0 < figures["low"] <= figures["median"] <= figures["high"]
            assert len(figures["turns"]) == result["turns"] == len(result["useful_tokens"])
        assert side["peak_mib"] > 0
    for measure in ("speed", "cpu_speed"):
        assert result["ratio"]["tulu/trl"][measure]["median"] > 0
    assert result["environment"]["versions"]["trl"]
    assert result["environment"]["hardware"]["threads"] >= 1
    assert "command" in result["environment"]


def side(name: str, tokens: tuple[int, ...], seconds: tuple[float, ...], loss: float = 1.0) -> run.Side:
    task = Task("sft", name, Path(), Path(), 2, 2, 64)
    turns = [Turn(each, each, (loss,), 300.0) for each in seconds]
    return run.Side(task, Ready(tokens, 100.0), turns)


def test_ratios_are_taken_turn_by_turn_without_the_first() -> None:
    ours, theirs = side("tulu", (8, 8, 8, 8), (9.0, 1.0, 2.0, 4.0)), side("trl", (8, 8, 8, 8), (1.0, 2.0, 2.0, 12.0))
    ratio = run.ratios(ours, theirs)
    assert ratio["speed"] == {"median": 2.0, "low": 1.0, "high": 3.0, "turns": [2.0, 1.0, 3.0]}
    assert ratio["training_memory"] == 1.0
    assert run.figures(ours, [8, 8, 8])["tokens_per_second"]["turns"] == [8.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (side("trl", (8, 9), (1.0, 1.0)), "different lengths"),
        (side("trl", (8, 8), (1.0, 1.0), loss=1.1), "different losses"),
    ],
)
def test_different_work_is_refused(other: run.Side, message: str) -> None:
    with pytest.raises(TuluError, match=message):
        run.check_same_work([side("tulu", (8, 8), (1.0, 1.0)), other], 2)


def test_without_data_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TULU_SHARED", str(tmp_path))
    assert run.main(["sft"]) == 0
    assert "gsm8k" in (said := capsys.readouterr().err)
    assert "TULU_SHARED" in said


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run.main(["sfr"])
    assert stopped.value.code == 2
    assert "sfr" in capsys.readouterr().err


def test_transcripts() -> None:
    text = "\n\nHuman: hi\n\nAssistant: Hello.\n\nHow: are you?\n\nHuman: fine\n\nAssistant: "
    assert read_transcript(text) == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "Hello.\n\nHow: are you?"},
        {"role": "user", "content": "fine"},
        {"role": "assistant", "content": ""},
    ]
    pair = to_pair({"chosen": text + "good", "rejected": text + "bad"})
    assert [message["content"] for message in (*pair["chosen"], *pair["rejected"])] == ["good", "bad"]
    assert len(pair["prompt"]) == 3
