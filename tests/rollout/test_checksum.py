"""The checksum that is taken where a tensor lies: by hand, in pieces, and for what can break on the way."""

import pytest
import torch

from tulu.rollout import checksum
from tulu.rollout.checksum import FACTORS, MARK, checksums


def row(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


def by_hand(data: bytes) -> str:
    """The definition, in Python's own whole numbers."""
    data += bytes(-len(data) % 4)
    words = [int.from_bytes(data[first : first + 4], "little", signed=True) for first in range(0, len(data), 4)]
    halves = [sum(word * (((place * by) ^ mixed) | 1) for place, word in enumerate(words)) % 2**64 for by, mixed in FACTORS]
    return MARK + "".join(f"{half:016x}" for half in halves)


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 64, 1001])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_it_is_what_is_defined_whatever_is_summed_at_a_time(length: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "CHUNK", chunk)
    data = torch.randint(0, 256, (length,), dtype=torch.uint8, generator=torch.Generator().manual_seed(length))
    assert checksums([data]) == [by_hand(bytes(data.tolist()))]


def test_every_single_bit_counts() -> None:
    data = torch.randint(0, 256, (64,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    spoilt = []
    for place in range(64):
        for bit in range(8):
            other = data.clone()
            other[place] ^= 1 << bit
            spoilt.append(other)
    assert len({*checksums([data, *spoilt])}) == 1 + 64 * 8


def test_words_that_change_places_and_zeros_in_place_of_numbers_are_seen() -> None:
    first, swapped, lost = row(1, 0, 0, 0, 2, 0, 0, 0), row(2, 0, 0, 0, 1, 0, 0, 0), row(0, 0, 0, 0, 2, 0, 0, 0)
    assert len({*checksums([first, swapped, lost])}) == 3


def test_many_are_taken_together() -> None:
    rows = [row(1, 2, 3, 4), row(), row(255) * 1]
    assert checksums(rows) == [checksums([each])[0] for each in rows]
    assert checksums([]) == []
