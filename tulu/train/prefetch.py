"""The rows of the next step are made ready by a thread while the device works on the present one.

What is made is a function of its place alone, so the thread changes when it is made and nothing else.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def ahead(make: Callable[[int], T], places: range, device: torch.device) -> Iterator[Iterator[T]]:
    """Gives `make(place)` of every place in order, each made while its caller is still busy with the one before.

    An error of `make` is raised where its result is asked for. The thread has ended when the context does.
    """
    with ThreadPoolExecutor(1, "rows", _use, (device,)) as thread:
        yield _results(thread, make, places)


def _use(device: torch.device) -> None:
    """Let this thread work with the GPU of its process; it would claim memory of the first one otherwise."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _results(thread: ThreadPoolExecutor, make: Callable[[int], T], places: range) -> Iterator[T]:
    if not places:
        return
    waiting = thread.submit(make, places[0])
    for following in places[1:]:
        made = waiting.result()
        waiting = thread.submit(make, following)
        yield made
    yield waiting.result()
