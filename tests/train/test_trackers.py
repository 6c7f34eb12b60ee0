"""Trackers: what TensorBoard and W&B read back by their own readers, and what becomes of one that fails."""

import json
import logging
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.train.test_looks import chats, job, metrics_of, write
from tulu.cli import app
from tulu.config.job import Job
from tulu.config.load import load_recipe
from tulu.errors import RecipeError
from tulu.stages import sft
from tulu.train import tracking
from tulu.train.run import Run
from tulu.train.trackers import RunFacts, flat
from tulu.train.tracking import Trackers

BLOCK = 1 << 15
"""Bytes of a block of W&B's files."""


def tracked(folder: Path, model: Path, *trackers: str, **fields: Any) -> Job:
    """An SFT job with looks, whose figures go to these trackers."""
    data = write(folder / "rows.jsonl", chats(0, 20))
    looked = {"held_out": 0.2, "eval_every": 2, "eval_tokens": 3, "save_every": 2}
    made = job("sft", folder, model, data=data, **{**looked, **fields})
    recipe = made.recipe.model_copy(update={"tracker": trackers})
    return Job(recipe, made.stage, made.folder, made.start)


def interrupt_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the session die once this step is logged, before its checkpoint."""
    plain = Run.end_step

    def end_step(self: Run, last: bool, state: Any = None) -> None:
        if self.step == step:
            raise OSError("killed")
        plain(self, last, state)

    monkeypatch.setattr(Run, "end_step", end_step)


def run_twice(made: Job, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that dies after its third step and goes on from the checkpoint of the second."""
    with monkeypatch.context() as patch:
        interrupt_after(3, patch)
        with pytest.raises(OSError, match="killed"):
            sft.run(made)
    return sft.run(made).parent


def expected_of(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(line["step"], line[name]) for line in metrics_of(folder) if line.get(name) is not None]


def test_tensorboard_reads_back_every_figure_the_recipe_the_commit_and_the_answers(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_twice(tracked(tmp_path, tiny_model(), "tensorboard"), monkeypatch)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    names = {name for line in metrics_of(folder) for name, value in line.items() if value is not None and name != "step"}
    assert set(events.Tags()["scalars"]) == names
    assert {"loss", "learning_rate", "eval/nll", "tokens_per_second"} <= names
    for name in ("nll", "eval/nll"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(value)) for step, value in expected_of(folder, name)], "no step twice"
    texts = {tag.removesuffix("/text_summary"): events.Tensors(tag) for tag in events.Tags()["tensors"]}
    [recipe] = texts["recipe"]
    assert "learning_rate: 0.003" in recipe.tensor_proto.string_val[0].decode()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert texts["commit"][0].tensor_proto.string_val[0].decode() == str(manifest["commit"])
    assert [event.step for event in texts["samples"]] == [2, 4]
    table = texts["samples"][-1].tensor_proto.string_val[0].decode()
    assert table.startswith("| task | id | prompt | answer | score |")
    assert len(table.splitlines()) == 2 + 3


def wandb_records(folder: Path) -> list[Any]:
    """All records of the offline runs below a folder, oldest first, as W&B's own messages.

    Its reader of files is a program that sends them to a server, so the frame is read here: behind 7 bytes for the format come
    blocks of 32 KiB with parts of records, each behind 4 bytes of checksum, 2 of length and 1 that says whether the record ends
    with it (LevelDB's log format: 1 whole, 2 first, 3 middle, 4 last).
    """
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    records = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        content, at, parts = file.read_bytes(), 7, b""
        assert content[:4] == b":W&B"
        while at + 7 <= len(content):
            if BLOCK - at % BLOCK < 7:
                at += BLOCK - at % BLOCK
                continue
            length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
            if kind == 0:
                break
            parts += content[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                record = messages.Record()
                record.ParseFromString(parts)
                records.append(record)
                parts = b""
    return records


def test_wandb_offline_reads_back_every_figure_and_a_resumed_run_is_the_same_run(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = run_twice(tracked(tmp_path, tiny_model(), "wandb"), monkeypatch)
    records = wandb_records(folder)
    runs = [record.run for record in records if record.HasField("run")]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {run.run_id for run in runs} == {manifest["trackers"]["wandb"]}
    assert {(run.project, run.display_name, run.run_group, run.job_type) for run in runs} == {("tulu", "t/sft", "t", "sft")}
    settings: dict[str, Any] = {}
    for record in records:
        for update in record.config.update if record.HasField("config") else record.run.config.update:
            settings[update.key] = json.loads(update.value_json)
    assert settings["commit"] == manifest["commit"]
    assert settings["sft"]["learning_rate"] == 3e-3
    history: list[dict[str, Any]] = []
    for record in records:
        if record.HasField("history"):
            items = record.history.item
            history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    latest = {(row["step"], name): value for row in history for name, value in row.items() if not name.startswith("_")}
    for line in metrics_of(folder):
        for name, value in line.items():
            if value is not None:
                assert latest[line["step"], name] == pytest.approx(value)
    tables = [row for row in history if any(name.startswith("samples") for name in row)]
    assert [row["step"] for row in tables] == [2, 4]
    [file, *_] = folder.glob("wandb/offline-run-*/files/media/table/*.json")
    content = json.loads(file.read_text())
    assert content["columns"][:5] == ["task", "id", "prompt", "answer", "score"]
    assert len(content["data"]) == 3


# -- one that is not there, fails, or hangs ---------------------------------------------------------------------


def test_a_missing_package_is_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl", chats(0, 3))
    (tmp_path / "r.yaml").write_text(
        "name: r\nmodel: owner/model\ntemplate: tulu\ntracker: [tensorboard, trackio]\n"
        "sft: {data: rows.jsonl, max_length: 64, batch: 2, micro_batch: 2, steps: 1, learning_rate: 1e-4}\n"
    )
    monkeypatch.setattr("tulu.config.job.find_spec", lambda name: None if name == "trackio" else object())
    result = CliRunner().invoke(app, ["sft", "r.yaml"])
    assert result.exit_code == 2, result.output
    assert "tracker: trackio is not installed; pip install 'tulu[trackio]', or set tracker=none" in result.output
    assert not (tmp_path / "runs" / "r" / "sft").exists()


@pytest.mark.parametrize(
    ("written", "read"),
    [("wandb", ("wandb",)), ("none", ()), ("null", ()), ("[wandb, mlflow, wandb]", ("wandb", "mlflow")), ("[]", ())],
)
def test_one_tracker_several_or_none(written: str, read: tuple[str, ...], tmp_path: Path) -> None:
    assert load_recipe("quickstart", [f"tracker={written}"]).tracker == read


def test_a_tracker_that_nobody_knows_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"(?s)tracker.*tensorboard.*wandb"):
        load_recipe("quickstart", ["tracker=wandbb"])


class FakeTracker:
    """Keeps what it gets, and does with some of it what it is told to."""

    def __init__(self, on_step: Mapping[int, Callable[[], None]] | None = None) -> None:
        self.id: str | None = "fake-1"
        self.on_step = on_step or {}
        self.got: list[tuple[int, Any]] = []
        self.threads: set[int] = set()
        self.closed = False

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.threads.add(threading.get_ident())
        self.on_step.get(step, lambda: None)()
        self.got.append((step, dict(values)))

    def table(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.got.append((step, list(rows)))

    def close(self) -> None:
        self.closed = True


FACTS = RunFacts("r/sft", "r", "sft", Path("none"), 0, {"a": 1})


def started(monkeypatch: pytest.MonkeyPatch, **made: FakeTracker) -> Trackers:
    monkeypatch.setattr(tracking, "TRACKERS", {name: lambda facts, one=one: one for name, one in made.items()})
    trackers = Trackers()
    assert trackers.start([*made], FACTS) == dict.fromkeys(made, "fake-1")
    return trackers


def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise SystemExit("the quota\nis used up")

    bad, good = FakeTracker({3: fail}), FakeTracker()
    trackers = started(monkeypatch, wandb=bad, mlflow=good)
    for step in range(1, 6):
        trackers.log(step, {"loss": float(step), "mfu": None})
    trackers.table(5, [{"task": "sums", "answer": "7"}])
    trackers.table(5, [])
    trackers.close()
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    left = "training goes on without it; metrics.jsonl has every figure"
    assert told == [f"tracker wandb failed at step 3 (SystemExit: the quota): {left}"]
    assert [step for step, _ in bad.got] == [1, 2]
    assert good.got == [*((step, {"loss": float(step)}) for step in range(1, 6)), (5, [{"task": "sums", "answer": "7"}])]
    assert good.closed
    assert threading.get_ident() not in good.threads


def test_a_tracker_that_hangs_holds_no_step_back_and_the_run_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "END_SECONDS", 0.2)
    monkeypatch.setattr(tracking, "MOST_WAITING", 3)
    release = threading.Event()
    hung = FakeTracker({1: lambda: (release.wait(300), None)[1]})
    trackers = started(monkeypatch, wandb=hung)
    began = time.monotonic()
    for step in range(1, 50):
        trackers.log(step, {"loss": 1.0})
    trackers.close()
    assert time.monotonic() - began < 100
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1, "once"
    assert "3 lines wait for it, and further ones are left out" in told[0]
    release.set()


def test_a_tracker_that_does_not_start_is_an_error_with_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    good = FakeTracker()

    def fail(facts: RunFacts) -> FakeTracker:
        raise ValueError("No API key configured. Use `wandb login`\nmore")

    monkeypatch.setattr(tracking, "TRACKERS", {"mlflow": lambda facts: good, "wandb": fail})
    trackers = Trackers()
    with pytest.raises(RecipeError, match=r"(?s)wandb: ValueError: No API key configured.*WANDB_MODE=offline") as error:
        trackers.start(["mlflow", "wandb"], FACTS)
    assert error.value.exit_code == 2
    assert good.closed
    trackers.log(1, {"loss": 1.0})
    trackers.close()


def test_settings_become_plain_values_under_dotted_names() -> None:
    found = flat({"sft": {"lora": None, "batch": 4, "data": [{"name": "x"}], "loss": "sum"}, "b": True, "e": {}})
    assert found == {"sft.lora": "None", "sft.batch": 4, "sft.data": "[{'name': 'x'}]", "sft.loss": "sum", "b": True, "e": "{}"}
