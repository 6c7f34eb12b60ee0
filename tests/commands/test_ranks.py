"""Which commands start ranks, how many, and by whom; what can be refused is refused before one of them starts."""

import sys
from pathlib import Path

import pytest

from tests.test_cli import call

RECIPE = """\
name: ranks
model: {model}
template: tulu
sft:
  data: {rows}
  max_length: 64
  batch: 16
  steps: 100000
  learning_rate: 1.0e-3
  precision: fp32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that is right, of a model folder that holds no weights: nothing here loads them."""
    model, rows, file = tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "mine.yaml"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    file.write_text(RECIPE.format(model=model, rows=rows))
    return file


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """The launches that a command would have made."""
    for name in ("RANK", "WORLD_SIZE", "TULU_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    made: list[tuple[int, list[str]]] = []
    monkeypatch.setattr("tulu.commands.launch.launch", lambda count, command, said: made.append((count, list(command))))
    return made


@pytest.mark.parametrize("command", ["sft", "run"])
def test_ranks_run_the_command_that_was_given(
    command: str, recipe: Path, launches: list[tuple[int, list[str]]], tmp_path: Path
) -> None:
    given = [command, str(recipe), "sft.seed=3", "--gpus", "4", "--runs", str(tmp_path / "runs")]
    assert call(*given).exit_code == 0
    assert [count for count, _ in launches] == [4]
    words = launches[0][1]
    assert words[0] == sys.executable
    assert words[words.index("tulu") + 1 :] == given


def test_learners_of_the_recipe_are_started_as_gpus_are_and_in_a_cluster_by_ray(
    launches: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("tulu.commands.ray_launch.launch_in_ray", lambda count, command: launches.append((-count, list(command))))
    given = ["rlvr", "quickstart", "rlvr.resources.learners=4", "--runs", str(tmp_path / "runs")]
    assert call(*given).exit_code == 0
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert call(*given).exit_code == 0
    assert call(*given, "--gpus", "4").exit_code == 0
    assert [count for count, _ in launches] == [4, -4, -4]
    for refused, expected in (
        (["--gpus", "2"], "rlvr.resources.learners=4 and --gpus=2: give both the same number"),
        (["rlvr.resources.learners=7"], "does not divide over 7 processes"),
    ):
        result = call(*given, *refused)
        assert (result.exit_code, expected in result.stderr) == (2, True), result.stderr
    assert len(launches) == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("sft.batch=6", "sft.batch: 6: does not divide over 4 processes"),
        ("sft.data=gone.jsonl", "gone.jsonl"),
        ("sft.start=./gone", "no such folder"),
        ("sft.bacth=3", "did you mean batch?"),
    ],
)
def test_what_can_be_refused_is_refused_before_a_rank_starts(
    change: str, expected: str, recipe: Path, launches: list[tuple[int, list[str]]], tmp_path: Path
) -> None:
    result = call("sft", str(recipe), change, "--gpus", "4", "--runs", str(tmp_path / "runs"))
    assert result.exit_code == 2
    assert expected in result.stderr
    assert launches == []


def test_more_gpus_than_there_are_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tulu.commands.launch.count_gpus", lambda: 2)
    result = call("sft", str(recipe), "--gpus", "4")
    assert result.exit_code == 2
    assert "--gpus 4: this process sees 2" in result.stderr


def test_nothing_is_launched_for_one_gpu_or_twice(
    recipe: Path, launches: list[tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    monkeypatch.setattr("tulu.cli._run_stage", lambda *_: trained.append(1))
    assert call("sft", str(recipe), "--gpus", "1").exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    assert call("sft", str(recipe), "--gpus", "4").exit_code == 0
    assert (launches, trained) == ([], [1, 1])
    result = call("sft", str(recipe), "--gpus", "2")
    assert result.exit_code == 2
    assert "--gpus 2: a launcher (torchrun, srun, accelerate) started 4 processes already" in result.stderr


@pytest.mark.parametrize("spelling", ["--gpus", "--processes"])
def test_plan_and_dry_run_take_gpus(spelling: str, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    equation = "global batch 16 = 4 processes × micro-batch 4 × accumulation 1"
    assert equation in call("plan", str(recipe), spelling, "4").stdout
    assert equation in call("sft", str(recipe), "--gpus", "4", "--dry-run").stdout
