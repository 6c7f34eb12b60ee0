"""Places where no command can write: one message with the cure, exit code 2 before the work, and nothing elsewhere touched."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_bad_input import Place, complained
from tulu.cli import app

FILE, BELOW_A_FILE = "rows.jsonl", "rows.jsonl/runs"
PLACES = {
    "/proc": "nothing can be made there",
    "/proc/runs": "nothing can be made there",
    "/sys/runs": "make it writable",
    "/dev/null": "a file stands where a folder belongs",
    FILE: "a file stands where a folder belongs",
    BELOW_A_FILE: "a file stands where a folder belongs",
}
COMMANDS: dict[str, list[str]] = {
    "sft": ["sft", "RECIPE", "--runs", "PLACE"],
    "rlvr, after sft": ["rlvr", "RECIPE", "--runs", "PLACE"],
    "run": ["run", "RECIPE", "--runs", "PLACE"],
    "tiny": ["sft", "RECIPE", "--tiny", "--runs", "PLACE"],
    "evaluate a model": ["evaluate", "MODEL", "--task", "mine", "--data", "PROBLEMS", "--runs", "PLACE"],
    "evaluate into": ["evaluate", "MODEL", "--task", "mine", "--data", "PROBLEMS", "--out", "PLACE"],
    "sample": ["sample", "MODEL", "--data", "PROBLEMS", "--verifier", "exact", "--out", "PLACE"],
    "rewardbench": ["rewardbench", "REWARD_MODEL", "--data", "PAIRS", "--out", "PLACE"],
    "data": ["data", "RECIPE", "--decontaminate", "--clean", "PLACE"],
}


@pytest.fixture(scope="module")
def words(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Path], tiny_reward_model: Callable[..., Path]
) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    place = Place(folder, tiny_model("olmo2"))
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    named = {"RECIPE": place.recipe, "PROBLEMS": folder / "problems.jsonl", "PAIRS": folder / "pairs.jsonl"}
    models = {"MODEL": tiny_model("olmo2"), "REWARD_MODEL": tiny_reward_model("olmo2")}
    return {name: str(path) for name, path in {**named, **models}.items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_place_where_nothing_can_be_written_is_refused(command: str, place: str, words: dict[str, str]) -> None:
    target = Path(words["RECIPE"]).parent / place
    if not Path(target.anchor, *target.parts[1:2]).exists():
        pytest.skip(f"this system has no {place}")
    rows = (Path(words["RECIPE"]).parent / FILE).read_text()
    result = CliRunner().invoke(app, [words.get(word, str(target) if word == "PLACE" else word) for word in COMMANDS[command]])
    # A reward model's file of scores may have any name, so that a file there is told in words of its own.
    cure = "" if command == "rewardbench" else PLACES[place]
    complained(result, 2, str(target), cure)
    assert (Path(words["RECIPE"]).parent / FILE).read_text() == rows


@pytest.mark.parametrize("target", ["/proc/scored.jsonl", "/sys/scored.jsonl"])
def test_a_file_where_nothing_can_be_written_is_refused_before_rows_are_graded(target: str, tmp_path: Path) -> None:
    if not Path(target).parent.is_dir():
        pytest.skip(f"this system has no {target}")
    (tmp_path / "in.jsonl").write_text('{"completion": "2", "ground_truth": "2"}\n')
    result = CliRunner().invoke(app, ["verify", "exact", "--in", str(tmp_path / "in.jsonl"), "--out", target])
    complained(result, 2, f"--out {target}: cannot be written")


@pytest.mark.parametrize("stage", ["sft", "rlvr"])
def test_every_file_of_a_run_has_the_mode_that_the_umask_leaves(
    stage: str, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """So that whoever may read the folder may read the model, whatever library wrote it."""
    place = Place(tmp_path, tiny_model("olmo2"))
    adapters = ["sft.lora.rank=2", "sft.lora.alpha=4"] if stage == "sft" else []
    before = os.umask(0o027)
    try:
        result = place.call(stage, f"{stage}.keep_every=1", "sft.steps=1", "rlvr.steps=1", *adapters)
    finally:
        os.umask(before)
    assert (place.runs / "tiny" / stage / "metrics.jsonl").exists(), result.output
    modes = {str(path.relative_to(place.runs)): path.stat().st_mode & 0o777 for path in place.runs.rglob("*")}
    assert {path: mode for path, mode in modes.items() if mode != (0o750 if (place.runs / path).is_dir() else 0o640)} == {}
