"""Places where no command can write: one message with the cure, exit code 2 before the work, and nothing elsewhere touched."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.report.made_run import make_run
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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "demo", steps=1)


OF_RUNS: dict[str, list[str]] = {
    "report": ["report", "RUN", "--out", "PLACE"],
    "energy": ["energy", "RUN", "--out", "PLACE"],
    "export": ["export", "RUN", "PLACE"],
}


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ("/proc/x", "nothing can be made there"),
        ("/proc/x/y", "nothing can be made there"),
        ("/sys/x", "make it writable"),
        ("file/x", "a file stands where a folder belongs"),
    ],
)
@pytest.mark.parametrize("command", OF_RUNS)
def test_what_is_made_of_runs_is_refused_there_too(
    command: str, place: str, cure: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path(place).is_absolute():
        (tmp_path / "file").write_text("kept")
    elif not Path("/", *Path(place).parts[1:2]).is_dir():
        pytest.skip(f"this system has no {place}")
    if command == "export":
        (run / "rlvr" / "model").mkdir(exist_ok=True)
        (run / "rlvr" / "model" / "config.json").write_text("{}")
        monkeypatch.setattr("tulu.train.model_files.model_faults", lambda folder: [])
    target = str(tmp_path / place)
    result = CliRunner().invoke(app, [{"RUN": str(run), "PLACE": target}.get(word, word) for word in OF_RUNS[command]])
    another = "FOLDER" if command == "export" and place.count("/") == 2 else "--out"
    complained(result, 2, "cannot be made", f"{cure}, or name another place", another)


@pytest.mark.parametrize("command", ["report", "energy"])
def test_a_device_and_a_pipe_are_not_replaced_by_a_file(command: str, run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = CliRunner().invoke(app, [command, str(run), "--out", str(tmp_path / "pipe")])
    complained(result, 2, "--out", "is a device or a pipe, and no file; name a file")
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("energy RUNS", "locked/one/manifest.json: Permission denied; make it readable, or name another place"),
        ("report locked --runs RUNS", "locked/one/manifest.json: Permission denied; make it readable, or name another place"),
        ("report demo --runs RUNS", "demo: there is no such run"),
    ],
)
def test_what_may_not_be_read_is_to_be_made_readable(
    words: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mode of a folder is no bar to root, under whom tests may run."""
    locked = tmp_path / "locked" / "one"
    locked.mkdir(parents=True)
    look, ask = Path.stat, os.access

    def refuse(path: Path, **how: bool) -> os.stat_result:
        if path.parent == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path, **how)

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and ask(path, mode))
    result = CliRunner().invoke(app, [str(tmp_path) if word == "RUNS" else word for word in words.split()])
    complained(result, 2, told)


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
