"""An attempt at a stage: refused it leaves nothing, and its energy is counted once, whatever kills what deletes it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.train.test_ledger import energy, gpus, stage
from tests.train.test_run import job, opened
from tulu.errors import DataError, RecipeError, TrainingError, TuluError
from tulu.train import attempts
from tulu.train.attempts import attempting, set_aside
from tulu.train.ledger import read_ledger

ROW = {"seconds": 10.0, "sampling_seconds": 6.0, "share_forward": 0.2}


def attempt(runs: Path, kwh: float = 4.0) -> Path:
    """A stage that was killed after its checkpoint."""
    manifest = {"hardware": gpus(8), "commit": "c0ffee"}
    folder = stage(runs / "a" / "sft", manifest, {"energy": energy(kwh, 1.0), "seconds": 7200}, json.dumps(ROW) + "\n")
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"x" * 1000)
    (folder / "recipe.yaml").write_text("name: a")
    return folder


def test_attempts_stay_on_record_and_nothing_else_of_them(tmp_path: Path) -> None:
    for kwh in (4.0, 6.0):
        set_aside(attempt(tmp_path, kwh))
    now = stage(tmp_path / "a" / "sft", {"energy": energy(1.0), "finished": True, "seconds": 60, "hardware": gpus(8)})
    found = read_ledger([tmp_path])
    assert [(one.name, one.state, one.kwh, round(one.gpu_hours, 3)) for one in found] == [
        ("a/sft, attempt 1", "unfinished, started over", 5.0, 16.0),
        ("a/sft, attempt 2", "unfinished, started over", 7.0, 16.0),
        ("a/sft", "finished", 1.0, 0.133),
    ]
    assert found[0].phases == {"rollout": 0.6, "training": 0.2, "sync": 0.0, "evaluation": 0.0, "idle and other": 0.2}
    left = [file for file in (tmp_path / "a" / ".earlier").rglob("*") if file.is_file()]
    assert [file.name for file in left] == ["manifest.json"] * 2
    assert json.loads(left[0].read_text())["commit"] == "c0ffee"
    assert sum(one.kwh for one in read_ledger([now])) == 13.0, "a stage brings along what it took before"


def test_a_kill_at_any_moment_neither_loses_energy_nor_counts_it_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of the disk in turn is the last one that is done; then the command is given again."""
    changes = [0]

    def killed(change: Any) -> Any:
        def instead(*arguments: Any, **options: Any) -> Any:
            changes[0] -= 1
            if changes[0] < 0:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return instead

    for module, name in ((Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (shutil, "rmtree"), (attempts, "write_atomic")):
        monkeypatch.setattr(module, name, killed(getattr(module, name)))
    kills = 0
    for allowed in range(30):
        changes[0] = 1000
        runs = tmp_path / str(allowed)
        folder = attempt(runs)
        changes[0] = allowed
        try:
            set_aside(folder)
            survived = True
        except KeyboardInterrupt:
            survived = False
            kills += 1
        changes[0] = 1000
        assert [(one.kwh, one.gpu_hours, len(one.phases)) for one in read_ledger([runs])] == [(5.0, 16.0, 5)], allowed
        set_aside(folder)
        assert [one.kwh for one in read_ledger([runs])] == [5.0]
        assert len([file for file in runs.rglob("*") if file.is_file()]) == 1
        if survived:
            break
    assert survived
    assert kills >= 6


def test_what_measured_nothing_leaves_nothing(tmp_path: Path) -> None:
    set_aside(tmp_path / "a" / "sft")
    assert not (tmp_path / "a").exists()
    set_aside(stage(tmp_path / "a" / "sft", {"hardware": gpus(8)}))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_damaged_attempt_counts_by_what_can_be_read(tmp_path: Path) -> None:
    folder = attempt(tmp_path)
    (folder / "manifest.json").write_text("{")
    set_aside(folder)
    assert [one.kwh for one in read_ledger([tmp_path])] == [5.0]


def test_a_link_is_not_followed_to_where_it_leads(tmp_path: Path) -> None:
    real = attempt(tmp_path / "elsewhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "sft").symlink_to(real)
    with pytest.raises(RecipeError, match="is a link"):
        set_aside(tmp_path / "a" / "sft")
    assert (real / "model" / "model.safetensors").is_file()


def fails(folder: Path, error: TuluError, **pinned: str) -> Path:
    """The folder of a stage that opens its run, pins something or nothing, and fails of the error."""

    def trains() -> None:
        with attempting(job(folder)):
            run = opened(folder)
            if pinned:
                run.pin(**pinned)
            raise error

    with pytest.raises(type(error), match=str(error)):
        trains()
    return folder / "tiny" / "sft"


def test_a_stage_that_is_refused_leaves_no_folder_that_counts_as_its_beginning(tmp_path: Path) -> None:
    assert not fails(tmp_path, DataError("no columns")).exists()
    assert (fails(tmp_path, TrainingError("not finite")) / "recipe.yaml").is_file()
    assert (fails(tmp_path, DataError("no columns")) / "recipe.yaml").is_file(), "a folder that was there is another attempt's"


def test_a_stage_that_has_begun_keeps_its_folder_when_it_is_refused(tmp_path: Path) -> None:
    assert (fails(tmp_path, RecipeError("reset returned a text"), data="d1") / "manifest.json").is_file()
