"""A checksum of a tensor's bytes that is taken where they lie, so that weights on a GPU need not come back to be compared.

The bytes are read as 32-bit words w_0, w_1, … with zeros behind the last. Two sums over w_i · m_i, modulo 2^64, where m_i is an
odd number made of the place i, are its halves. A single word that differs by d changes them by d · m_i, which is never 0, and
other places have other factors, so that words which change places are seen too. Integer sums do not depend on their order: the
CPU and every GPU get the same. It finds what broke on its way, not what somebody forged.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MARK = "words:"
"""A digest of this kind begins so; others are xxh3."""
CHUNK = 1 << 22
"""Words that are summed at a time, to bound the memory that it takes."""
FACTORS = ((0x1E3779B97F4A7C15, 0x2545F4914F6CDD1D), (0x3C6EF372FE94F82B, 0x27D4EB2F165667C5))
"""Of each half: what a place is multiplied by, and what is mixed into the product."""


def checksums(rows: Sequence[Tensor]) -> list[str]:
    """The checksum of each row of bytes; the device is waited for once, for all of them together."""
    if not rows:
        return []
    halves = torch.stack([_halves(row) for row in rows]).tolist()
    return [MARK + "".join(f"{half & (1 << 64) - 1:016x}" for half in pair) for pair in halves]


def _halves(row: Tensor) -> Tensor:
    """The two sums over one row of bytes, as a tensor on its device."""
    whole = len(row) // 4 * 4
    sums = torch.zeros(2, dtype=torch.int64, device=row.device)
    for first in range(0, whole, 4 * CHUNK):
        sums += _part(row[first : min(whole, first + 4 * CHUNK)].view(torch.int32), first // 4)
    if whole < len(row):
        last = torch.zeros(4, dtype=torch.uint8, device=row.device)
        last[: len(row) - whole] = row[whole:]
        sums += _part(last.view(torch.int32), whole // 4)
    return sums


def _part(words: Tensor, first: int) -> Tensor:
    places = torch.arange(first, first + len(words), dtype=torch.int64, device=words.device)
    wide = words.to(torch.int64)
    return torch.stack([(wide * (((places * by) ^ mixed) | 1)).sum() for by, mixed in FACTORS])
