"""Checkpoints: they hold weights and state, old ones go, a damaged one is named, and none is ever half of one."""

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.samples import make_stage
from tulu.errors import CheckpointError, ResumeError
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
def test_a_damaged_checkpoint_is_refused_where_it_is_the_only_one(tmp_path: Path, damage: Damage) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {})
    damage(tmp_path / "step-000001")
    with pytest.raises(ResumeError, match=r"(?s)step-000001 is damaged: \w+.*No whole checkpoint is left.*--fresh") as raised:
        checkpoints.load_newest()
    assert raised.value.exit_code == 2
    assert (tmp_path / "step-000001").is_dir(), "what may be restored is left where it is"


def flip(content: bytearray, place: int, _: random.Random) -> bytearray:
    content[place] ^= 1 << place % 8
    return content


def overwrite(byte: int) -> "Callable[[bytearray, int, random.Random], bytearray]":
    def damage(content: bytearray, place: int, chance: random.Random) -> bytearray:
        length = chance.choice([1, 16, 4000])
        content[place : place + length] = bytes([byte]) * len(content[place : place + length])
        return content

    return damage


def cut(content: bytearray, place: int, _: random.Random) -> bytearray:
    return content[:place]


def extend(content: bytearray, place: int, chance: random.Random) -> bytearray:
    return content + chance.randbytes(1 + place % 64)


def lose_a_block(content: bytearray, place: int, _: random.Random) -> bytearray:
    """What a sector does that reads as its neighbour: the size stays."""
    return content[:place] + content[place + 8 : place + 16] + content[place + 8 :]


KINDS = {
    "flipped": flip,
    "zeroed": overwrite(0),
    "0xff": overwrite(255),
    "cut": cut,
    "extended": extend,
    "shifted": lose_a_block,
}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_at_50_random_places_is_never_read_into_the_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, model = opened(tmp_path)
    model(torch.ones(2)).sum().backward()
    checkpoints.save(1, {"step": 1, "seconds": 1.5, "extra": {"drawn": 4}})
    monkeypatch.setattr(checkpoints.parallel, "load", lambda folder: pytest.fail("it was loaded"))
    files = sorted(file for file in (tmp_path / "step-000001").rglob("*") if file.is_file())
    assert len(files) >= 4
    seed = random.SystemRandom().randrange(1 << 30)
    chance = random.Random(seed)
    damaged = 0
    while damaged < 50:
        file = chance.choice(files)
        whole = file.read_bytes()
        spoilt = bytes(KINDS[kind](bytearray(whole), chance.randrange(len(whole)), chance))
        if spoilt == whole:
            continue
        damaged += 1
        file.write_bytes(spoilt)
        print(f"seed {seed}, {file.name}")
        with pytest.raises(ResumeError, match=file.name):
            checkpoints.load_newest()
        file.write_bytes(whole)
    assert checkpoints.check(tmp_path / "step-000001")[1] == []


def test_a_changed_bit_of_any_byte_of_state_json_is_found(tmp_path: Path) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {"step": 1, "seconds": 1.25, "energy": {"cpu": (1, 2)}, "extra": {7: 4}})
    file = tmp_path / "step-000001" / "state.json"
    whole, state = file.read_bytes(), checkpoints.check(tmp_path / "step-000001")[0]
    assert (state["step"], state["extra"]) == (1, {"7": 4})
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert checkpoints.check(tmp_path / "step-000001")[1], whole[max(0, place - 20) : place + 20]


def test_the_one_before_a_damaged_one_is_taken_and_this_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints, model = opened(tmp_path, keep=3)
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.weight, step)
        checkpoints.save(step, {"step": step})
    for step, name in ((2, "optimizer.bin"), (3, "pytorch_model.bin")):
        file = tmp_path / f"step-00000{step}" / name
        file.write_bytes(file.read_bytes()[:-8] + b"\xff" * 8)
    again, model = opened(tmp_path, keep=3)
    state = again.load_newest()
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(model.weight, torch.full((2, 2), 1.0))
    for said in ("3 is damaged: pytorch_model.bin is not", "2 is damaged: optimizer.bin is not", "Resuming from .*step-000001"):
        assert re.search(said, caplog.text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged-step-000002", "damaged-step-000003", "step-000001"]
    again.save(2, {"step": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002"], "put aside until there is another"


def test_a_checkpoint_of_an_earlier_version_is_taken_by_its_sizes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {"step": 1})
    file = tmp_path / "step-000001" / "state.json"
    state = json.loads(file.read_text())
    del state["digest"]
    file.write_text(json.dumps({**state, "files": {name: size for name, (size, _) in state["files"].items()}}))
    assert (checkpoints.load_newest() or {})["step"] == 1
    assert "has no digests, so only the sizes" in caplog.text
    os.truncate(tmp_path / "step-000001" / "optimizer.bin", 10)
    with pytest.raises(ResumeError, match=r"optimizer\.bin has 10 bytes of"):
        checkpoints.load_newest()


def test_what_is_whole_and_still_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints, _ = opened(tmp_path)
    checkpoints.save(1, {})

    def other_version(folder: Path) -> None:
        raise RuntimeError("size mismatch for weight")

    monkeypatch.setattr(checkpoints.parallel, "load", other_version)
    with pytest.raises(ResumeError, match=r"(?s)step-000001: cannot be read \(RuntimeError: size mismatch.*another version"):
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
