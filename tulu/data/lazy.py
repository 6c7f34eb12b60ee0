"""A sequence whose items are made when they are read, so that memory does not grow with their number."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
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


def concatenated(parts: Sequence[Callable[[], LazySequence[T]]]) -> LazySequence[T]:
    """The items of several sequences one after the other, of which only the last one or two that were read are open.

    Each part is a function that opens its sequence. All are opened once to learn their lengths.
    """
    open_part = lru_cache(maxsize=2)(lambda number: parts[number]())
    ends = list(accumulate(len(open_part(number)) for number in range(len(parts))))

    def read(place: int) -> T:
        number = bisect_right(ends, place)
        return open_part(number)[place - (ends[number - 1] if number else 0)]

    return LazySequence(ends[-1] if ends else 0, read)
