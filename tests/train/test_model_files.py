"""Models that a stage keeps on the way: whole, recorded by their digests, and made again where a session died."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.train.test_run import flip, opened
from tulu.errors import CheckpointError
from tulu.train.model_files import model_faults
from tulu.train.run import Run


def keeping(tmp_path: Path, every: int = 2) -> Run:
    """A run that keeps its model, whose weights say at which step they were written."""
    run = opened(tmp_path, keep_every=every, save_every=2)
    run.pin(data="as it is")

    def save(folder: Path, write: bool) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        save_file({"weight": torch.full((9,), float(run.step))}, folder / "model.safetensors")

    run.save_model = save
    return run


def train_to(run: Run, last: int) -> None:
    while run.step < last:
        run.step += 1
        run.end_step(last=False)


def test_models_are_kept_on_the_way_and_stay(tmp_path: Path) -> None:
    run = keeping(tmp_path)
    train_to(run, 7)
    kept = sorted((run.path / "models").iterdir())
    assert [folder.name for folder in kept] == ["step-000002", "step-000004", "step-000006"]
    assert [load_file(folder / "model.safetensors")["weight"][0].item() for folder in kept] == [2.0, 4.0, 6.0]
    assert len(list((run.path / "checkpoints").iterdir())) == 2, "while only the newest checkpoints are kept"
    assert [model_faults(folder) for folder in kept] == [[], [], []]
    flip(kept[1] / "model.safetensors")
    assert [bool(model_faults(folder)) for folder in kept] == [False, True, False]
    assert not opened(tmp_path, keep_every=2, save_every=2).finished, "the last model comes at the end"


def test_a_session_that_dies_between_model_and_checkpoint_writes_the_model_again(tmp_path: Path) -> None:
    run = keeping(tmp_path)
    train_to(run, 3)

    def no_room(step: int, state: object) -> None:
        assert (run.path / "models" / "step-000004").is_dir(), "the model comes first, or a resumed run would go on without it"
        raise CheckpointError("no room")

    run.checkpoints.save = no_room  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="no room"):
        train_to(run, 4)
    again = keeping(tmp_path)
    again.resume()
    assert again.step == 2
    assert [folder.name for folder in (run.path / "models").iterdir()] == ["step-000002"], "later ones are made again"
    train_to(again, 4)
    assert model_faults(again.path / "models" / "step-000004") == []


def test_a_kept_model_is_whole_or_absent(tmp_path: Path) -> None:
    run = keeping(tmp_path, every=1)

    def broken(folder: Path, write: bool) -> None:
        folder.mkdir(parents=True)
        raise OSError("no room")

    run.save_model = broken
    with pytest.raises(CheckpointError, match=r"models/step-000001: the model could not be written \(no room\)"):
        train_to(run, 1)
    assert list((run.path / "models").iterdir()) == []
    assert "kept" not in run.manifest()
