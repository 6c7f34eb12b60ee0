"""Batches that count tokens: which rows each step draws, as a function of the step alone.

Lay the rows of all epochs end to end, in the order in which they are drawn. Token t belongs to step t // batch_tokens, and a row
to the step of its first token. With batch_tokens: 10 and rows of 4, 5, 3 and 6 tokens:

    tokens  0 … 3 | 4 … 8 | 9 … 11 | 12 … 17 | 18 …
    rows    first | second | third | fourth  | first again
    step        0 |      0 |     0 |       1 | 1
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tulu.config.training import TokenBatched
from tulu.data.mixing import order


class TokenBatches:
    """The rows of every step of a stage whose batch counts tokens.

    A step has batch_tokens tokens on average, more or less by one row, and no row is left out or drawn twice in an epoch. It
    costs two searches in the sums of an epoch's lengths, which are made once an epoch. Every step has a row, because no row has
    more tokens than a batch (tulu/config/checks.py).

    reference: the SFT of Olmo 3 counts the tokens of packed rows of max_length, padding included, and drops the last batch if it
    is not full (OLMo-core src/olmo_core/data/{numpy_dataset,data_loader}.py @ 9e97471). Here rows are packed within a step, only
    their own tokens count, and the last step has what is left.
    """

    def __init__(self, lengths: NDArray[np.int64], stage: TokenBatched) -> None:
        """Batches of rows of these lengths."""
        assert stage.batch_tokens is not None
        self._lengths, self._seed, self._size = lengths, stage.seed, stage.batch_tokens
        self._rows = len(lengths)
        self._epoch_tokens = int(lengths.sum())
        self._starts = lru_cache(maxsize=2)(self._sum)
        self._last = None if stage.steps is not None else max(1, round(self._rows * (stage.epochs or 1.0)))
        """Rows that all epochs draw; None where the number of steps is given."""
        self.steps = stage.steps if stage.steps is not None else self._steps_of(self._last or 1)
        """Steps of the stage."""

    def _sum(self, epoch: int) -> NDArray[np.int64]:
        """(rows,) the first token of every row of an epoch, in the order of the epoch."""
        ends = np.cumsum(self._lengths[order(self._rows, self._seed, epoch)])
        return np.concatenate([[0], ends[:-1]])

    def _steps_of(self, rows: int) -> int:
        epoch, place = divmod(rows - 1, self._rows)
        return (epoch * self._epoch_tokens + int(self._starts(epoch)[place])) // self._size + 1

    def draw(self, step: int) -> list[int]:
        """The rows of a step."""
        first, end = step * self._size, (step + 1) * self._size
        drawn: list[int] = []
        for epoch in range(first // self._epoch_tokens, (end - 1) // self._epoch_tokens + 1):
            begin = epoch * self._epoch_tokens
            left = self._rows if self._last is None else min(self._rows, self._last - epoch * self._rows)
            if left > 0:
                low, high = np.searchsorted(self._starts(epoch)[:left], [first - begin, end - begin]).tolist()
                drawn += order(self._rows, self._seed, epoch)[low:high].tolist()
        return drawn
