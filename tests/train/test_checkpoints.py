"""Checkpoints: they hold weights and state, old ones go, a damaged one is named, and none is ever half of one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.samples import make_stage
from tulu.errors import CheckpointError
from tulu.model.parallel import Parallel
from tulu.train.checkpoints import Checkpoints


def opened(folder: Path, keep: int = 2) -> tuple[Checkpoints, torch.nn.Linear]:
    """Checkpoints of a tiny model, prepared as a learner prepares it."""
    parallel = Parallel(make_stage())
    model = torch.nn.Linear(2, 2)
    parallel.prepare(model, torch.optim.AdamW(model.parameters()))
    return Checkpoints(folder, keep, parallel), model


def test_they_hold_weights_and_state_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints, model = opened(tmp_path)
    for step in (1, 2, 9, 10):
        torch.nn.init.constant_(model.weight, step)
        checkpoints.save(step, {"step": step, "extra": {"drawn": step * 4}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000009", "step-000010"]
    again, model = opened(tmp_path)
    state = again.load_newest()
    assert state is not None
    assert (state["step"], state["extra"]) == (10, {"drawn": 40})
    assert torch.equal(model.weight, torch.full((2, 2), 10.0))


def test_random_states_go_on_where_they_were(tmp_path: Path) -> None:
    checkpoints, _ = opened(tmp_path)
    torch.rand(3)
    checkpoints.save(1, {})
    expected = torch.rand(3)
    again, _ = opened(tmp_path)
    again.load_newest()
    assert torch.equal(torch.rand(3), expected)


def test_without_any_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert opened(tmp_path / "none")[0].load_newest() is None


def test_the_same_step_may_be_saved_twice(tmp_path: Path) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {"drawn": 1})
    checkpoints.save(1, {"drawn": 2})
    state = checkpoints.load_newest()
    assert state is not None
    assert state["drawn"] == 2


def test_leftovers_of_a_session_that_died_are_removed(tmp_path: Path) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {})
    half = tmp_path / ".partial-step-000002"
    half.mkdir()
    (half / "model.bin").write_text("half")
    opened(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state.json").write_text('{"step": 1, "sec'),
        lambda folder: (folder / "state.json").write_text("{}"),
        lambda folder: (folder / "state.json").unlink(),
        lambda folder: (folder / "pytorch_model.bin").unlink(),
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b""),
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"garbage"),
        lambda folder: os.truncate(folder / "pytorch_model.bin", (folder / "pytorch_model.bin").stat().st_size // 2),
        lambda folder: os.truncate(folder / "optimizer.bin", (folder / "optimizer.bin").stat().st_size // 2),
        lambda folder: (folder / "optimizer.bin").write_bytes(b""),
        lambda folder: (folder / "random_states_0.pkl").write_bytes(b"garbage"),
    ],
    ids="state_cut state_bare no_state no_weights weights_empty weights_garbage weights_cut optimizer_cut optimizer_empty "
    "random_states_garbage".split(),
)
def test_a_damaged_checkpoint_is_named_with_the_cure(tmp_path: Path, damage: Damage) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {})
    damage(tmp_path / "step-000001")
    with pytest.raises(CheckpointError, match=r"(?s)step-000001: cannot be read .*Remove this folder"):
        checkpoints.load_newest()


def test_a_disk_that_refuses_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {})

    def full(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.parallel, "save", full)
    with pytest.raises(CheckpointError, match=r"(?s)step-000002: the checkpoint could not be written .*No space.*resumes from"):
        checkpoints.save(2, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
