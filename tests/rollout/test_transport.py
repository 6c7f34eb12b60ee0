"""The ways of weights to engines, piece by piece: shelves, buffers, what is told of each, and which way is taken where."""

import gc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tulu.rollout import receiver as receiving
from tulu.rollout import transport
from tulu.rollout.broadcast import Broken
from tulu.rollout.fleet_calls import EngineLost
from tulu.rollout.fleet_member import Member
from tulu.rollout.fleet_replica import Taken
from tulu.rollout.fleet_sync import in_vain, spoilt_in
from tulu.rollout.pieces import Broadcast, Memory, MemoryShelf, OnCard
from tulu.rollout.receiver import Receiver, digests
from tulu.rollout.sync import Layout, Weight, grouped
from tulu.rollout.transport import Card, Group, OffTheShelf, choose, told_way

CPU = torch.device("cpu")


def group(value: float, count: int = 10) -> list[Weight]:
    """A weight, a buffer that stays float32, and one whose bytes end between two places."""
    weights = {
        "a": torch.full((count, 3), value),
        "b": torch.nn.Buffer(torch.full((4,), value, dtype=torch.float32)),
        "c": torch.full((5,), value),
    }
    (made,) = grouped(weights.items(), torch.bfloat16)
    return made


def held(place: Any, infos: dict[str, Any], receiver: Receiver) -> dict[str, torch.Tensor]:
    """What a receiver finds there, after it has looked at the digests."""
    layout = Layout.of(infos)
    memory = receiver.memory(place, layout)
    assert digests(memory, layout) == {name: info.digest for name, info in infos.items()}
    return {name: tensor.clone() for name, tensor in layout.tensors(memory)}


def same(found: dict[str, torch.Tensor], sent: list[Weight]) -> bool:
    return all(
        torch.equal(found[weight.name], weight.tensor) and found[weight.name].dtype == weight.tensor.dtype for weight in sent
    )


def test_groups_are_cut_by_size_in_the_engine_s_dtype_and_hold_nothing_twice() -> None:
    weights = {name: torch.ones(100) for name in "abcde"}
    parts = list(grouped(weights.items(), torch.bfloat16, most=450))
    assert [[weight.name for weight in part] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    (whole,) = grouped(weights.items(), torch.float32)
    assert all(weight.tensor.data_ptr() == weights[weight.name].data_ptr() for weight in whole)


def test_memory_of_the_former_weights_serves_the_new_ones_and_readers_see_them() -> None:
    shelf, receiver = MemoryShelf(), Receiver(CPU)
    kept = [shelf.lay(group(1.0)), shelf.lay(group(2.0, count=100))]
    paths = [cast(Memory, piece.place).path for piece in kept]
    assert same(held(kept[0].place, kept[0].infos, receiver), group(1.0))
    shelf.clear(kept, in_use=False)
    assert kept == []
    new = shelf.lay(group(3.0, count=100))
    # The piece of the same size is written over; the other one is let go at the end.
    assert cast(Memory, new.place).path == paths[1]
    shelf.settle()
    assert not Path(paths[0]).exists()
    assert same(held(new.place, new.infos, receiver), group(3.0, count=100))


def test_weights_that_an_engine_still_reads_stay_until_it_has_read_them() -> None:
    shelf, receiver = MemoryShelf(), Receiver(CPU)
    kept = [shelf.lay(group(1.0))]
    read = list(kept)
    shelf.clear(kept, in_use=True)
    new = shelf.lay(group(2.0))
    shelf.settle()
    assert same(held(read[0].place, read[0].infos, receiver), group(1.0))
    assert same(held(new.place, new.infos, receiver), group(2.0))
    path = Path(cast(Memory, read[0].place).path)
    read.clear()
    gc.collect()
    assert not path.exists()


def test_other_memory_behind_the_same_path_is_mapped_anew(tmp_path: Path) -> None:
    """The numbers of files in a process are given again, so a path may come to name other memory."""
    receiver, path = Receiver(CPU), tmp_path / "memory"
    for value in (1.0, 2.0):
        layout = Layout.of({weight.name: weight.info() for weight in group(value)})
        row = torch.zeros(layout.size, dtype=torch.uint8)
        layout.fill(row, group(value))
        path.unlink(missing_ok=True)
        path.write_bytes(bytes(row.tolist()))
        assert same(dict(layout.tensors(receiver.memory(Memory(str(path)), layout))), group(value))


def test_a_file_is_free_when_the_last_tensor_in_it_is_gone() -> None:
    shelf, receiver = MemoryShelf(), Receiver(CPU)
    piece = shelf.lay(group(1.0))
    layout = Layout.of(piece.infos)
    tensors = dict(layout.tensors(receiver.memory(piece.place, layout)))
    del tensors["a"], tensors["b"]
    assert receiver.free() == []
    tensors.clear()
    assert receiver.free() == [cast(Memory, piece.place).path]
    assert receiver.free() == []


def test_a_piece_for_the_group_is_packed_once_with_digests_that_the_other_end_finds() -> None:
    way = Group("gloo", CPU, "127.0.0.1", 1.0, 1.0)
    way.load(group(1.0))
    first, memory = way.piece(), way.packed.memory
    way.load(group(2.0))
    assert (first.place, way.piece().place) == (Broadcast(1), Broadcast(2))
    assert way.packed.memory.data_ptr() != memory.data_ptr()
    layout = Layout.of(first.infos)
    assert digests(memory, layout) == {name: info.digest for name, info in first.infos.items()}
    assert same(dict(layout.tensors(memory)), group(1.0))
    memory[0] ^= 1
    assert digests(memory, layout)["a"] != first.infos["a"].digest
    way.settle()
    assert way.packed.memory.numel() == 0
    with pytest.raises(Broken, match="no group"):
        way.send(lambda: None)


def test_engines_on_the_learner_s_card_open_its_memory_and_others_read_the_shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA does stands aside here; each engine gets a handle of its own, because torch counts how often one is opened."""
    members = [
        cast(Member, SimpleNamespace(name=f"engine-{n}", restarts=0, actor=_Asked([card]))) for n, card in enumerate("AAB")
    ]
    made: list[torch.Tensor] = []

    def handle(memory: torch.Tensor) -> dict[str, bytes]:
        made.append(memory)
        return {"A": str(len(made) - 1).encode()}

    monkeypatch.setattr(transport, "card_of", lambda device: "A")
    monkeypatch.setattr(transport, "handles_of", handle)
    monkeypatch.setattr(transport, "wait_for_all", lambda calls: ({call.engine: call.reference for call in calls}, {}))
    monkeypatch.setattr(receiving, "opened", lambda handles, device: made[int(handles["A"])])
    way = Card(CPU, 1.0)
    way.open(members)
    assert [way.takes(member) for member in members] == [True, True, False]
    way.load(group(1.0))
    pieces = [way.piece(), way.piece()]
    assert [cast(OnCard, piece.place).handles["A"] for piece in pieces] == [b"0", b"1"]
    found = held(pieces[1].place, pieces[1].infos, Receiver(CPU))
    way.load(group(2.0))
    way.load(group(3.0))
    assert same(found, group(1.0)), "the buffer is written again while an engine still keeps tensors of a layer"


class _Asked:
    def __init__(self, answer: list[str]) -> None:
        self.cards = SimpleNamespace(remote=lambda: answer)


def test_the_way_is_the_shortest_that_is_there() -> None:
    assert isinstance(choose(CPU, False, False, "", 1.0, 1), OffTheShelf)
    assert told_way(OffTheShelf(), MemoryShelf()) == "shared memory"
    cuda = cast(torch.device, SimpleNamespace(type="cuda"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_Packed", lambda device: device)
        assert isinstance(choose(cuda, False, True, "", 1.0, 1), Card)
        apart, spread = choose(cuda, False, False, "", 1.0, 2), choose(cuda, True, True, "10.0.0.1", 1.0, 2)
    assert [(way.name, cast(Group, way).workers) for way in (apart, spread)] == [("NCCL", 2), ("NCCL", 2)]
    assert told_way(apart, MemoryShelf()) == "NCCL, and shared memory keeps them for an engine that is restarted"


def test_a_broadcast_is_in_vain_when_an_engine_died_or_did_not_take_part() -> None:
    def call(answered: bool, answer: Any = None, error: EngineLost | None = None) -> Any:
        def say() -> Any:
            if error:
                raise error
            return answer

        return SimpleNamespace(answered=answered, engine="engine-1", answer=say)

    assert in_vain([call(False), call(True, Taken({}))]) is None
    assert in_vain([call(False), call(True, Taken({}, "another process left"))]) == "engine-1: another process left"
    assert in_vain([call(True, error=EngineLost("engine-2", "its process died"))]) == "engine-2: its process died"


def test_an_engine_is_held_to_what_it_was_told_on_its_own_way() -> None:
    way, shelf = Group("gloo", CPU, "127.0.0.1", 1.0, 1.0), MemoryShelf()
    way.load(group(1.0))
    short, long = way.piece().infos, shelf.lay(group(1.0)).infos
    told = {"one": short, "two": long}
    right = {name: Taken({key: info.digest for key, info in infos.items()}) for name, infos in told.items()}
    assert spoilt_in(right, told) == {}
    assert set(spoilt_in({"one": right["two"], "two": right["one"]}, told)) == {"one", "two"}
    assert spoilt_in({"one": Taken({}, "it took too long")}, told) == {"one": "a piece did not reach one (it took too long)"}
