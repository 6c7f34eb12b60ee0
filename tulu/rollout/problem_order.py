"""The endless shuffled order of problems, from which those that the policy solves may be taken out for good."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tulu.data.mixing import order
from tulu.errors import TuluError


class ProblemOrder:
    """Which problem stands at a position of the order, a function of seed, position and what was retired.

    A problem that is retired in an epoch stays until that epoch ends, and is in none of those that follow; so an epoch's order is
    settled when it begins, and a resumed run needs no more than the number drawn and the list of what was retired.

    reference: ShufflingIterator.exclude_index of open-instruct, open_instruct/grpo_fast.py @ 42aa63c (no_resampling_pass_rate),
    which leaves out what is left over of an epoch after its last full batch; here a step goes on into the next epoch.
    """

    def __init__(self, problems: int, seed: int, retired: Iterable[Sequence[int]] = ()) -> None:
        """`retired` are the (problem, epoch) of `state()`."""
        self.problems, self.seed = problems, seed
        self._retired = {int(problem): int(epoch) for problem, epoch in retired}
        self._epoch = self._begin = 0
        self._present = self._left_in(0)

    def _left_in(self, epoch: int) -> NDArray[np.int64]:
        """The problems of an epoch in its order."""
        gone = [problem for problem, when in self._retired.items() if when < epoch]
        left = np.delete(np.arange(self.problems), gone)
        if not len(left):
            raise TuluError(
                f"rlvr.retire_at: all {self.problems} problems are solved as often as it says, so none is left to sample\n"
                "Raise it, add problems, or end the stage before with rlvr.steps; a changed recipe needs --fresh or another name."
            )
        return left[order(len(left), self.seed, epoch)]

    def at(self, position: int) -> int:
        """The problem at a position, which counts from the begin of the run."""
        if position < self._begin:
            self._epoch = self._begin = 0
            self._present = self._left_in(0)
        while position >= self._begin + len(self._present):
            self._begin += len(self._present)
            self._epoch += 1
            self._present = self._left_in(self._epoch)
        return int(self._present[position - self._begin])

    def retire(self, problems: Iterable[int], drawn: int) -> None:
        """Take problems out from the epoch on that follows the one in which the last of `drawn` positions lies."""
        self.at(drawn - 1)
        for problem in problems:
            self._retired.setdefault(problem, self._epoch)

    @property
    def retired(self) -> int:
        """How many problems were taken out."""
        return len(self._retired)

    def state(self) -> list[list[int]]:
        """What a checkpoint keeps."""
        return [[problem, epoch] for problem, epoch in self._retired.items()]
