"""Which rows of which data sets are trained on, and in what order: sampled and unrolled, the same everywhere."""

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np

from tulu.config.schema import Source
from tulu.data.formats import ACCEPTED, Kind
from tulu.data.nested import unroll
from tulu.data.sources import Row, load_rows
from tulu.errors import DataError


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of n rows in an epoch: the same on every machine and whenever it is asked for."""
    # RandomState's streams are frozen for good (NEP 19); Generator's may change with numpy.
    return [int(index) for index in np.random.RandomState([seed % 2**32, epoch]).permutation(n)]


def mix(sources: Sequence[Source], seed: int = 1, kind: Kind = "sft") -> list[Row]:
    """The rows of a mix, source after source, sampled and unrolled."""
    return [row for source in checked(sources) for row in drawn(source, seed, kind)]


def checked(sources: Sequence[Source]) -> Sequence[Source]:
    """The mix, unless it lists a data set twice (DataError): that is almost always a slip, and fraction says it better."""
    seen: set[tuple[str, str | None, str]] = set()
    for source in sources:
        key = (source.name, source.subset, source.split)
        if key in seen:
            raise DataError(f"{source.name}: listed twice in the mix; list it once, with fraction: 2.0 for two copies")
        seen.add(key)
    return sources


def drawn(source: Source, seed: int, kind: Kind) -> Iterator[Row]:
    """The sampled rows of one source, read as they are asked for; further copies have ids ending in #2, #3, ..."""
    found = unroll(load_rows(source, seed), kind)
    if not len(found):
        raise DataError(f"{source.name}: holds nothing for {kind}; accepted are {ACCEPTED[kind]}")
    for index, copy in sample(len(found), source, seed):
        row = found[index]
        yield row if copy == 1 else Row(f"{row.id}#{copy}", row.columns)


def sample(n: int, source: Source, seed: int) -> list[tuple[int, int]]:
    """(index, copy) of what a source of n rows gives: whole copies, then the remainder without replacement, in file order.

    As open-instruct's DatasetConfig.select_samples (dataset_transformation.py @ e6c3044a), but drawn by the run's seed
    and the source's name, so that a source added to the mix changes no other's sample.
    """
    # 0.29 * 100 is 28.999...: a fraction means what it says.
    amount = source.count if source.count is not None else math.floor((source.fraction or 0.0) * n + 1e-9)
    if amount == 0:
        raise DataError(f"{source.name}: fraction {source.fraction} of {n} rows is none; raise it or give a count")
    copies, rest = divmod(amount, n)
    whole = [(index, copy + 1) for copy in range(copies) for index in range(n)]
    key = hashlib.blake2b(f"{source.name}:{source.subset}:{source.split}".encode(), digest_size=4).digest()
    random = np.random.RandomState([seed % 2**32, int.from_bytes(key, "big")])
    return whole + [(index, copies + 1) for index in sorted(random.permutation(n)[:rest].tolist())]
