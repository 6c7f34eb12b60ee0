"""Steps that count tokens: paper numbers, every row once an epoch, the same however many epochs came before, and fast."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.samples import make_stage
from tulu.cli import app
from tulu.config.load import dump, load_recipe
from tulu.config.schema import Sft
from tulu.data.mixing import order
from tulu.errors import RecipeError
from tulu.train.fit import draws_of
from tulu.train.run import Run
from tulu.train.token_batches import TokenBatches
from tulu.types import Completion, Group


def batches(lengths: list[int], tokens: int, **fields: Any) -> TokenBatches:
    settings = {"batch_tokens": tokens, "max_length": max(1, min(tokens, 512)), "steps": None, "epochs": 1.0, **fields}
    return TokenBatches(np.array(lengths, np.int64), make_stage(Sft, **settings))


def test_on_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 4, 5, 3 and 6 tokens begin at 0, 4, 9 and 12; the second epoch's at 18, 22, 27 and 30: 10 tokens a step."""
    monkeypatch.setattr("tulu.train.token_batches.order", lambda rows, seed, epoch: np.arange(rows))
    drawn = batches([4, 5, 3, 6], 10, epochs=2.0)
    assert drawn.steps == 4
    assert [drawn.draw(step) for step in range(4)] == [[0, 1, 2], [3, 0], [1, 2], [3]]
    assert batches([4, 5, 3, 6], 10, epochs=1.25).steps == 2
    assert [batches([4, 5, 3, 6], 10, epochs=1.25).draw(step) for step in range(2)] == [[0, 1, 2], [3, 0]]
    # A given number of steps goes on for as many epochs as it takes.
    endless = batches([4, 5, 3, 6], 10, epochs=None, steps=9)
    assert (endless.steps, endless.draw(8), endless.draw(1)) == (9, [2, 3], [3, 0])


@pytest.mark.parametrize("seed", range(3))
def test_every_row_once_an_epoch_in_the_order_of_the_epoch(seed: int) -> None:
    lengths = np.random.RandomState(seed).randint(1, 50, 97).tolist()
    drawn = batches(lengths, 64, max_length=50, epochs=3.0, seed=seed)
    rows = [row for step in range(drawn.steps) for row in drawn.draw(step)]
    assert rows == [row for epoch in range(3) for row in order(97, seed, epoch).tolist()]
    sizes = [sum(lengths[row] for row in drawn.draw(step)) for step in range(drawn.steps)]
    assert all(64 - 50 < size < 64 + 50 for size in sizes[:-1])
    assert min(sizes) > 0
    assert drawn.steps == (3 * sum(lengths) - lengths[rows[-1]]) // 64 + 1


def test_a_step_is_a_function_of_its_number_alone() -> None:
    lengths = np.random.RandomState(0).randint(1, 50, 97).tolist()
    forwards, backwards = batches(lengths, 64, max_length=50, epochs=5.0), batches(lengths, 64, max_length=50, epochs=5.0)
    ahead = [forwards.draw(step) for step in range(forwards.steps)]
    assert [backwards.draw(step) for step in reversed(range(backwards.steps))] == ahead[::-1]


def test_rows_as_long_as_the_batch_leave_no_step_empty() -> None:
    drawn = batches([10, 1, 10, 10, 2, 10], 10, epochs=4.0)
    assert all(drawn.draw(step) for step in range(drawn.steps))


def test_a_million_rows_cost_nothing_by_the_row() -> None:
    lengths = np.random.RandomState(0).randint(1, 4096, 1_000_000)
    drawn = TokenBatches(lengths, make_stage(Sft, batch_tokens=2**20, max_length=4096, steps=None, epochs=2.0))
    for step in (0, drawn.steps - 1):
        drawn.draw(step)
    # Seconds of this thread, whoever else wants the core.
    began = time.thread_time()
    for step in (1, 2, 3, drawn.steps - 2):
        assert 400 < len(drawn.draw(step)) < 650
    assert (time.thread_time() - began) / 4 < 0.02


def test_groups_without_an_array_of_lengths_are_counted() -> None:
    groups = [Group([1] * size, (Completion([2], [True]),)) for size in (3, 4, 2, 5)]
    stage = make_stage(Sft, batch_tokens=10, max_length=10, steps=None, epochs=1.0, seed=7)
    drawn = draws_of(groups, stage)
    assert drawn.steps == 2
    assert sorted(drawn.draw(0) + drawn.draw(1)) == [0, 1, 2, 3]


def recipe(folder: Path, model: str, **fields: Any) -> Path:
    sft = {
        "data": {"name": "sums:sft", "count": 40},
        "max_length": 128,
        "epochs": 1.0,
        "learning_rate": 1e-3,
        "precision": "fp32",
    }
    file = folder / "tokens.yaml"
    file.write_text(yaml.safe_dump({"name": "tokens", "model": model, "template": "tulu", "sft": {**sft, **fields}}))
    return file


def test_batch_follows_from_the_tokens_and_a_dump_reads_back(tmp_path: Path, tiny_model: Any) -> None:
    file = recipe(tmp_path, str(tiny_model("olmo2")), batch_tokens=256)
    loaded = load_recipe(str(file))
    assert loaded.sft is not None
    assert (loaded.sft.batch_tokens, loaded.sft.batch) == (256, 2)
    (tmp_path / "again.yaml").write_text(dump(loaded))
    assert load_recipe(str(tmp_path / "again.yaml")) == loaded
    # The number of processes need not divide it.
    assert load_recipe(str(file), processes=3) == loaded


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_tokens": 127}, "a step could be without a row; use 128 or more"),
        ({"batch_tokens": 256, "batch": 8}, "leave batch out, or set it to the 2 that it becomes"),
        ({"batch_tokens": 256, "loss": "sum"}, "loss sum is defined by micro-batches of sequences"),
        ({"batch_tokens": 0}, "greater than 0"),
        ({}, "sft.batch: missing; add it"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, tiny_model: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(str(recipe(tmp_path, str(tiny_model("olmo2")), **fields)))
    assert message in str(error.value)


def test_a_stage_trains_by_tokens_and_says_how_many(tmp_path: Path, tiny_model: Any) -> None:
    file = recipe(tmp_path, str(tiny_model("olmo2")), batch_tokens=256, save_every=1)
    result = CliRunner().invoke(app, ["sft", str(file), "--runs", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [yaml.safe_load(line) for line in (tmp_path / "tokens" / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) > 3
    assert sum(line["sequences"] for line in lines) == 40
    assert len({line["sequences"] for line in lines}) > 1, "steps have as many rows as it takes"
    assert all(256 - 128 < line["tokens"] < 256 + 128 for line in lines[:-1])


def test_a_run_broken_off_goes_on_with_the_same_rows_and_passes_over_the_same_steps(
    tmp_path: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"batch_tokens": 192, "save_every": 1, "epochs": 2.0, "skip_steps": {"window": 6, "sigma": 0.5}}
    file = recipe(tmp_path, str(tiny_model("olmo2")), **fields)

    def trained(runs: str) -> Path:
        CliRunner().invoke(app, ["sft", str(file), "--runs", str(tmp_path / runs)])
        return tmp_path / runs / "tokens" / "sft"

    whole = trained("whole")
    plain = Run.end_step

    def stop_at_nine(run: Run, last: bool, **extra: Any) -> None:
        plain(run, last, **extra)
        if run.step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "end_step", stop_at_nine)
        assert not (trained("broken") / "model").exists()
    broken = trained("broken")
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, broken)]
    assert len(lines[0]) == len(lines[1]) > 12
    for figure in ("loss", "passed_over", "sequences"):
        assert [line[figure] for line in lines[0]] == [line[figure] for line in lines[1]]
    assert 0 < lines[0][8]["passed_over"] < lines[0][-1]["passed_over"], "some before it was broken off, and some after"


def test_two_processes_draw_and_learn_what_one_does(tmp_path: Path, tiny_model: Any) -> None:
    fields = {"batch_tokens": 192, "skip_steps": {"window": 6, "sigma": 0.5}, "adam_epsilon": 1e-3}
    file = recipe(tmp_path, str(tiny_model("olmo2")), **fields)
    folders = []
    for gpus in ("1", "2"):
        command = [sys.executable, "-m", "tulu", "sft", str(file), "--gpus", gpus, "--runs", str(tmp_path / gpus)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        folders.append(tmp_path / gpus / "tokens" / "sft")
    alone, together = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert max(float((together[name] - alone[name]).abs().max()) for name in alone) < 1e-5
    drawn = [[line for line in (folder / "journal").read_text().splitlines() if "trained" in line] for folder in folders]
    assert drawn[0] == drawn[1]
    passed = [json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["passed_over"] for folder in folders]
    assert passed[0] == passed[1] > 0
