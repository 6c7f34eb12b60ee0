"""A run killed at any moment and started again ends with the weights of one that was never broken, bit for bit."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests import forked
from tulu.cli import app

STEPS = 6
TRAIN = {
    "max_length": 96,
    "batch": 4,
    "micro_batch": 2,
    "row_tokens": 256,
    "steps": STEPS,
    "learning_rate": 1e-3,
    "schedule": "linear",
    "warmup": 0.2,
    "clip_norm": 1.0,
    "precision": "fp32",
    "save_every": 1,
}
STAGES: dict[str, dict[str, Any]] = {
    "base": {
        "config": {
            "model_type": "olmo2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
        "data": {"name": "sums:base", "count": 40},
    },
    "sft": {"data": {"name": "sums:sft", "count": 40}},
    "dpo": {"data": {"name": "sums:pairs", "count": 40}},
    "rm": {"data": {"name": "sums:pairs", "count": 40}},
    "rlvr": {
        "data": {"name": "sums:train", "count": 40},
        "batch": 8,
        "micro_batch": 8,
        "prompts": 2,
        "samples": 4,
        "max_prompt": 64,
        "max_tokens": 12,
        "max_length": 96,
        "engine": "transformers",
        "minibatches": 2,
        "beta": 0.01,
    },
}
RESTLESS = """
def score(completion, ground_truth):
    # A random model never sums right; that its text has an even length is learnable all the same.
    return float(len(completion) % 2 == 0)
"""
KILLED_WHILE_SAVING = """
import os, signal
from pathlib import Path
from tulu.model import parallel
whole, saves = parallel.Parallel.save, []

def save(self, folder):
    whole(self, folder)
    saves.append(folder)
    if len(saves) == WHICH:
        largest = max(Path(folder).rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
        os.truncate(largest, largest.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

parallel.Parallel.save = save
from tulu.cli import main
main()
"""


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Callable[..., Path]) -> Path:
    """A recipe of every stage but base, which makes the model that the others are given."""
    (tmp_path / "restless.py").write_text(RESTLESS)
    sections: dict[str, Any] = {name: {**TRAIN, **section} for name, section in STAGES.items()}
    sections["rlvr"]["verifier"] = f"{tmp_path}/restless.py:score"
    base = sections.pop("base")
    common = {"name": "tiny", "template": "tulu"}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**common, "base": base}))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**common, "model": str(tiny_model("olmo2")), **sections}))
    return tmp_path / "tiny.yaml"


def command(stage: str, recipe: Path, runs: Path) -> list[str]:
    return [stage, str(recipe.with_name("base.yaml") if stage == "base" else recipe), "--runs", str(runs)]


@pytest.fixture
def ppo(recipe: Path, tiny_reward_model: Callable[..., Path]) -> Path:
    """The same recipe with a value model beside the policy."""
    written = yaml.safe_load(recipe.read_text())
    written["rlvr"] |= {"advantage": "gae", "value": str(tiny_reward_model("olmo2")), "refill": False}
    recipe.write_text(yaml.safe_dump(written))
    return recipe


def unbroken(stage: str, recipe: Path, runs: Path) -> Path:
    result = CliRunner().invoke(app, command(stage, recipe, runs), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return runs / "tiny" / stage


def started(stage: str, recipe: Path, runs: Path, script: str | None = None) -> forked.Forked:
    """The command, or a script in its place, in a process of its own, with as many threads as this one."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return forked.command(
        *command(stage, recipe, runs), output=recipe.with_name("output"), environment=environment, script=script
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(stage: str, one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first), "weights differ"
    figures = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)]
    assert [line["step"] for line in figures[1]] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in figures[0]] == [line["loss"] for line in figures[1]]
    trained = '"event": "trained"'
    journals = [[line for line in (folder / "journal").read_text().splitlines() if trained in line] for folder in (one, other)]
    assert journals[0] == journals[1], "a row was lost or trained twice"


@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_a_random_step(stage: str, recipe: Path, tmp_path: Path) -> None:
    broken = broken_off(stage, recipe, tmp_path, signal.SIGKILL, random.SystemRandom().randint(1, STEPS - 1))
    same(stage, unbroken(stage, recipe, tmp_path / "whole"), unbroken(stage, recipe, broken))


def broken_off(stage: str, recipe: Path, folder: Path, number: int, after: int) -> Path:
    """The folder of runs of a session that got a signal after so many steps, and did not end as if it had not.

    On a busy machine one may be done before the signal comes; then another is started.
    """
    for attempt in range(5):
        runs, deadline = folder / f"broken-{attempt}", time.monotonic() + 120
        process, log = started(stage, recipe, runs), runs / "tiny" / stage / "metrics.jsonl"
        while not (log.exists() and log.read_text().count("\n") >= after):
            assert process.poll() is None, recipe.with_name("output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        ended = process.wait(timeout=120)
        if not (runs / "tiny" / stage / "model").exists():
            assert ended == (-number if number == signal.SIGKILL else 130)
            return runs
        assert ended in (0, 130, -number)
    raise AssertionError("all were done before the signal came")


def test_ppo_killed_at_a_random_step(ppo: Path, tmp_path: Path) -> None:
    test_killed_at_a_random_step("rlvr", ppo, tmp_path)


def test_dropout_killed_at_a_random_step(recipe: Path, tmp_path: Path) -> None:
    """A resumed session goes on with the random states of the broken one, so that its adapters draw the same masks."""
    written = yaml.safe_load(recipe.read_text())
    written["sft"]["lora"] = {"rank": 4, "alpha": 8, "dropout": 0.5}
    recipe.write_text(yaml.safe_dump(written))
    test_killed_at_a_random_step("sft", recipe, tmp_path)


@pytest.mark.parametrize("stage", ["sft", "rlvr"])
def test_killed_while_a_checkpoint_is_written(stage: str, recipe: Path, tmp_path: Path) -> None:
    broken, which = tmp_path / "broken", random.SystemRandom().randint(1, STEPS)
    process = started(stage, recipe, broken, KILLED_WHILE_SAVING.replace("WHICH", str(which)))
    assert process.wait(timeout=120) == -signal.SIGKILL
    folder = broken / "tiny" / stage / "checkpoints"
    assert list(folder.glob(".partial-*")), "it was to die in the middle of a checkpoint"
    same(stage, unbroken(stage, recipe, tmp_path / "whole"), unbroken(stage, recipe, broken))
    assert not list(folder.glob(".partial-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=["Ctrl-C", "a closed terminal"])
def test_a_signal_saves_and_the_same_command_goes_on(number: int, recipe: Path, tmp_path: Path) -> None:
    runs = broken_off("sft", recipe, tmp_path, number, after=1)
    folder = runs / "tiny" / "sft"
    done = len((folder / "metrics.jsonl").read_text().splitlines())
    assert (folder / "checkpoints" / f"step-{done:06d}").is_dir()
    same("sft", unbroken("sft", recipe, tmp_path / "whole"), unbroken("sft", recipe, runs))


def test_a_changed_recipe_is_refused_and_fresh_starts_over(recipe: Path, tmp_path: Path) -> None:
    folder = unbroken("sft", recipe, tmp_path)
    before = weights(folder)
    changed = [*command("sft", recipe, tmp_path), "sft.learning_rate=0.01"]
    result = CliRunner().invoke(app, changed)
    assert result.exit_code == 2
    assert "sft.learning_rate: 0.001 -> 0.01" in result.output
    assert "--fresh" in result.output
    assert CliRunner().invoke(app, [*changed, "--fresh"], catch_exceptions=False).exit_code == 0
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(folder).items())


def test_changed_rows_are_refused(recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    line = '{"prompt": "one", "completion": "%s"}\n'
    rows.write_text("".join(line % word for word in ("two", "three", "four", "five")))
    arguments = [*command("sft", recipe, tmp_path), f"sft.data={rows}"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    (tmp_path / "tiny" / "sft" / "model").rename(tmp_path / "elsewhere")
    rows.write_text("".join(line % word for word in ("two", "three", "four", "six")))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "has changed" in result.output
    assert str(rows) in result.output


@pytest.mark.parametrize("what", ["verifier", "column"])
def test_what_verdicts_rest_on_is_the_same_or_refused(what: str, recipe: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"messages": [{"role": "user", "content": "1+1"}], "ground_truth": "2"}
    rows.write_text("".join(json.dumps({**row, "note": number}) + "\n" for number in range(4)))
    arguments = [*command("rlvr", recipe, tmp_path), f"rlvr.data={rows}"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    (tmp_path / "tiny" / "rlvr" / "model").rename(tmp_path / "elsewhere")
    verifier = tmp_path / "restless.py"
    changed, text = (verifier, "== 1") if what == "verifier" else (rows, '"note": 7')
    changed.write_text(changed.read_text().replace("== 0" if what == "verifier" else '"note": 3', text))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    named = f"verifiers.{verifier}:score" if what == "verifier" else "columns"
    assert f"what this run began with has changed:\n  {named}: " in result.output


SMALL_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))
from tulu.cli import main
main()
"""


@pytest.mark.parametrize("size", [2_000, 6_000, 60_000], ids=["a record", "rollouts", "a checkpoint"])
def test_files_that_cannot_grow_are_one_message_and_nothing_is_lost(size: int, recipe: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    process = started("rlvr", recipe, broken, SMALL_FILES.replace("MOST", str(size)))
    assert process.wait(timeout=120) == 1
    told = recipe.with_name("output").read_text()
    assert "Traceback" not in told, told
    assert "run the same command again" in told
    same("rlvr", unbroken("rlvr", recipe, tmp_path / "whole"), unbroken("rlvr", recipe, broken))


@pytest.mark.parametrize("stage", [*STAGES, "ppo"])
def test_numbers_that_are_not_finite_stop_every_stage(
    stage: str, recipe: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """So large a learning rate leaves weights that are finite still, and the next step's loss is not."""
    if stage == "ppo":
        request.getfixturevalue("ppo")
        stage = "rlvr"
    changes = [f"{stage}.learning_rate=1e37", f"{stage}.schedule=constant", f"{stage}.warmup=0"]
    result = CliRunner().invoke(app, [*command(stage, recipe, tmp_path), *changes])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "no traceback"
    expected = rf"{stage}, after [01] steps: the next step is not taken, its loss is nan: .*sums:.*no model was written"
    assert re.search(expected, result.output, re.DOTALL), result.output
    assert not (tmp_path / "tiny" / stage / "model").exists()


def test_a_sampler_that_predicts_nan_stops_rlvr(recipe: Path, tmp_path: Path) -> None:
    changes = ["rlvr.learning_rate=1e37", "rlvr.schedule=constant", "rlvr.warmup=0", "rlvr.minibatches=1"]
    result = CliRunner().invoke(app, [*command("rlvr", recipe, tmp_path), *changes])
    assert result.exit_code == 1
    assert "the model predicts NaN in place of probabilities" in result.output
    assert not (tmp_path / "tiny" / "rlvr" / "model").exists()


def test_a_start_that_is_not_finite_is_refused(recipe: Path, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    broken = shutil.copytree(tiny_model("olmo2"), tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["lm_head.weight"][3, 5] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    result = CliRunner().invoke(app, [*command("sft", recipe, tmp_path), f"model={broken}"])
    assert result.exit_code == 2
    assert "broken: weights that are not finite: " in result.output
    assert "lm_head.weight" in result.output
    # Nothing is pinned yet, so that the same run takes another model.
    assert CliRunner().invoke(app, command("sft", recipe, tmp_path), catch_exceptions=False).exit_code == 0


def test_two_at_once_in_one_folder(recipe: Path, tmp_path: Path) -> None:
    """The second is told before torch is imported; even --fresh deletes nothing; and the first ends as if it were alone."""
    first = subprocess.Popen(
        [sys.executable, "-m", "tulu", *command("sft", recipe, tmp_path / "both")], stderr=subprocess.DEVNULL
    )
    lock, deadline = tmp_path / "both" / "tiny" / ".sft.lock", time.monotonic() + 60
    while not (lock.exists() and lock.read_bytes()):
        assert time.monotonic() < deadline
    # It stands still while the others are told, so that it is not done before.
    first.send_signal(signal.SIGSTOP)
    script = "import sys\nfrom tulu.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"
    for command_line in (["sft"], ["sft", "--fresh"], ["run"]):
        arguments = [*command(command_line[0], recipe, tmp_path / "both"), *command_line[1:]]
        told = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert told.returncode == 2, told.stderr
        assert told.stdout == "False\n", "torch was imported"
        assert f"sft: in use by pid {first.pid} on " in told.stderr
    first.send_signal(signal.SIGCONT)
    assert first.wait(timeout=120) == 0
    assert not lock.exists()
    same("sft", unbroken("sft", recipe, tmp_path / "whole"), unbroken("sft", recipe, tmp_path / "both"))
