"""What processes have in common, and who goes first, with processes that are threads here."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tulu.data.faults import Unusable
from tulu.errors import DataError, RecipeError, TuluError
from tulu.train import agreement
from tulu.train.agreement import SAMPLED, agree, files_digest, from_main, software, start_digest


class Together:
    """So many processes as threads, each with a Parallel of its own."""

    def __init__(self, world: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.barrier = threading.Barrier(world)
        self.items: list[Any] = [None] * world
        monkeypatch.setattr(agreement, "_patient_group", lambda: None)
        monkeypatch.setattr(agreement.torch.distributed, "broadcast_object_list", self.broadcast)
        self.own = threading.local()

    def broadcast(self, items: list[Any], src: int, group: None) -> None:
        items[:] = self.exchange(list(items))[src]

    def exchange(self, item: Any) -> list[Any]:
        self.items[self.own.rank] = item
        self.barrier.wait(100)
        everyone = list(self.items)
        self.barrier.wait(100)
        return everyone

    def run(self, work: Callable[[Any], Any]) -> list[Any]:
        """What each rank returns or raises."""
        results: list[Any] = [None] * self.world

        def one(rank: int) -> None:
            self.own.rank = rank
            parallel = Fake(rank, self.world, self.exchange)
            try:
                results[rank] = work(parallel)
            except TuluError as error:
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return results


class Fake:
    """What agreement asks of a Parallel."""

    def __init__(self, rank: int, world: int, exchange: Callable[[Any], list[Any]]) -> None:
        self.rank, self.world, self.is_main, self.exchange = rank, world, rank == 0, exchange


def test_processes_that_see_the_same_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Together(3, monkeypatch).run(lambda parallel: agree(parallel, {"data": "abc", **software()})) == [None] * 3


def test_who_sees_something_else_is_named_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [{"data": "abc", "recipe": {"sft": {"batch": 8}}}] * 4
    facts[2] = {"data": "abd", "recipe": {"sft": {"batch": 8}}}
    facts[3] = {"data": "abc", "recipe": {"sft": {"batch": 4}}}
    results = Together(4, monkeypatch).run(lambda parallel: agree(parallel, facts[parallel.rank]))
    assert all(isinstance(result, RecipeError) for result in results)
    assert len({str(result) for result in results}) == 1
    assert '\n  rank 2: data: "abc" -> "abd"\n  rank 3: recipe.sft.batch: 8 -> 4\n' in str(results[0])


def test_the_main_process_alone_works_and_all_have_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    worked: list[int] = []

    def work(parallel: Any) -> Any:
        def once() -> list[str]:
            worked.append(parallel.rank)
            return ["folder"]

        return from_main(parallel, "it", once)

    assert Together(3, monkeypatch).run(work) == [["folder"]] * 3
    assert worked == [0]


def test_an_error_of_the_main_process_is_an_error_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that cannot be sent as it is."""

    def fail() -> None:
        raise Unusable("its text is broken", "rows.jsonl:3: its text is broken")

    results = Together(3, monkeypatch).run(lambda parallel: from_main(parallel, "it", fail))
    assert [type(result) for result in results] == [DataError] * 3
    assert {str(result) for result in results} == {"its text is broken"}


def test_the_log_says_what_the_others_wait_for(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(agreement, "SAY_AFTER", 0.05)

    def work() -> None:
        until = time.monotonic() + 60
        while not caplog.messages and time.monotonic() < until:
            time.sleep(0.01)

    with caplog.at_level(logging.INFO, "tulu"):
        Together(3, monkeypatch).run(lambda parallel: from_main(parallel, "the rows to be tokenised", work))
    assert caplog.messages == ["2 other processes wait for the rows to be tokenised"]


def write(folder: Path, size: int) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * (size // 256))
    return folder


@pytest.mark.parametrize("size", [4096, SAMPLED + 65536])
def test_files_of_a_model_are_told_apart(size: int, tmp_path: Path) -> None:
    one, same, other = (write(tmp_path / name, size) for name in ("one", "same", "other"))
    assert files_digest(one) == files_digest(same) == start_digest(str(one), None)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    # Training moves every weight; of a large file samples are read, the first and the last bytes among them.
    content[-1] ^= 1
    weights.write_bytes(content)
    assert files_digest(other) != files_digest(one)
    (same / "config.json").write_text("{ }")
    assert files_digest(same) != files_digest(one)
