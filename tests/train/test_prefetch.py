"""Rows that a thread makes ready change nothing but the time at which they are made."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from tulu.train.prefetch import ahead

CPU = torch.device("cpu")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("rows")]


def test_results_come_in_order_and_one_is_made_ahead() -> None:
    made: list[int] = []
    working = threading.Event()

    def make(place: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        made.append(place)
        if place == 4:
            working.set()
        return place * place

    with ahead(make, range(3, 7), CPU) as results:
        assert next(results) == 9
        assert working.wait(10), "the second is made while the first is in use"
        assert next(results) == 16
        assert list(results) == [25, 36]
    assert made == [3, 4, 5, 6], "each once"
    assert threads() == []


def test_no_more_than_one_is_made_ahead() -> None:
    made: list[int] = []
    with ahead(made.append, range(100), CPU) as results:
        next(results)
        until = time.monotonic() + 10
        while len(made) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [0, 1]


def test_an_error_surfaces_where_its_result_is_needed() -> None:
    def make(place: int) -> int:
        if place == 2:
            raise ValueError(f"row {place} cannot be read")
        return place

    with ahead(make, range(5), CPU) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="row 2 cannot be read"):
            next(results)
    assert threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whatever_ends_the_loop_ends_the_thread(error: type[BaseException]) -> None:
    def use(results: Iterator[int]) -> None:
        next(results)
        raise error

    with pytest.raises(error), ahead(lambda place: place, range(5), CPU) as results:
        use(results)
    assert threads() == []


def test_a_run_that_is_done_makes_nothing() -> None:
    with ahead(lambda place: pytest.fail("made"), range(4, 4), CPU) as results:
        assert list(results) == []
