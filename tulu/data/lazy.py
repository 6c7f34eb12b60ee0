"""A sequence whose items are made when they are read, so that memory does not grow with their number."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence of known length that makes each item anew whenever it is read."""

    def __init__(self, length: int, read: Callable[[int], T]) -> None:
        """`read` makes the item at a place from 0 to length - 1."""
        self._places = range(length)
        self._read = read

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._read(place) for place in self._places[index]]
        return self._read(self._places[index])

    def __iter__(self) -> Iterator[T]:
        return map(self._read, self._places)
