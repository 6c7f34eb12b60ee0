"""Which rows of which data sets are trained on, and in what order: sampled and unrolled, the same on every machine."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tulu.config.parts import Source
from tulu.config.stages import RowKind
from tulu.data.faults import read_each
from tulu.data.formats import ACCEPTED
from tulu.data.nested import unroll
from tulu.data.sources import Row, load_rows
from tulu.errors import DataError


# A step reads one epoch, or the end of one and the beginning of the next: a third permutation would only take memory.
@lru_cache(maxsize=2)
def order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """(n,) the order of n rows in an epoch, read-only: the same on every machine and at every call."""
    # RandomState's streams are frozen for good (NEP 19); Generator's may change with numpy.
    permutation = np.random.RandomState([seed % 2**32, epoch]).permutation(n)
    permutation.setflags(write=False)
    return permutation


def check_sources(sources: Sequence[Source]) -> Sequence[Source]:
    """The sources themselves; DataError where one is listed twice, which is almost always a slip (fraction says it better)."""
    keys = [(source.name, source.subset, source.split) for source in sources]
    for place, (name, *_) in enumerate(keys):
        if keys[place] in keys[:place]:
            raise DataError(f"{name}: listed twice in the mix; list it once, with fraction: 2.0 for two copies")
    return sources


def sample_rows(source: Source, seed: int, kind: RowKind) -> Iterator[Row]:
    """The sampled rows of one source, read one by one; the ids of further copies of a row end in #2, #3, ..."""
    rows = unroll(load_rows(source, seed), kind)
    if not len(rows):
        raise DataError(f"{source.name}: holds nothing for {kind}; accepted are {ACCEPTED[kind]}")
    places = sample_places(len(rows), source, seed)
    for place, row in enumerate(read_each(rows, map(int, places))):
        copy = place // len(rows) + 1
        yield row if copy == 1 else Row(f"{row.id}#{copy}", row.columns)


def sample_places(n: int, source: Source, seed: int) -> NDArray[np.int64]:
    """The places of the sampled rows among n: whole copies, then the remainder without replacement, each in file order.

    The result follows open-instruct's DatasetConfig.select_samples (dataset_transformation.py @ e6c3044a), but it is drawn by
    the run's seed and the source's name, so that a source added to the mix changes no other's sample. DataError for none.
    """
    # 0.29 * 100 is 28.999..., and stands for 29 rows.
    amount = source.count if source.count is not None else math.floor((source.fraction or 0.0) * n + 1e-9)
    if amount == 0:
        raise DataError(f"{source.name}: fraction {source.fraction} of {n} rows is none; raise it or give a count")
    copies, rest = divmod(amount, n)
    key = hashlib.blake2b(f"{source.name}:{source.subset}:{source.split}".encode(), digest_size=4).digest()
    random = np.random.RandomState([seed % 2**32, int.from_bytes(key, "big")])
    return np.concatenate([np.tile(np.arange(n), copies), np.sort(random.permutation(n)[:rest])])
