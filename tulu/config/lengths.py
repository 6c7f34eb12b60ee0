"""How long sequences are: a log-normal distribution, cut at the most that a stage takes.

Lengths of conversations are far from equal: most are short, and a few are very long. A log-normal distribution has that shape
and two numbers, the mean and the standard deviation of the logarithm.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

SPREAD = 1.0
"""Standard deviation of the logarithm. An assumption: with it, random batches of 8 that are padded to their longest hold 35 %
useful tokens, where the mean is 720 and 4,096 the most."""
_STANDARD = NormalDist()
NINE_TENTHS = 1.2815515655446004
"""The number below which nine tenths of a standard normal distribution lie."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of sequences in tokens."""

    mean: float
    """Before anything is cut."""
    longest: int
    """Where a sequence is cut, or beyond which it is left out."""
    leaves_out: bool = False
    """Whether a longer sequence is left out; otherwise it is cut."""

    @property
    def kept(self) -> float:
        """Share of the sequences that is taken."""
        return self._below(self.longest) if self.leaves_out else 1.0

    @property
    def tokens(self) -> float:
        """Mean length of what is taken."""
        return self._mean_of_kept(1) if self.leaves_out else self.cut_at(self.longest)

    @property
    def nine_tenths(self) -> float:
        """The length that nine of ten sequences do not exceed."""
        return min(math.exp(self._centre + NINE_TENTHS * SPREAD), float(self.longest))

    def cut_at(self, most: float) -> float:
        """Mean length where longer sequences are cut at `most`."""
        return self._part(1, most) + most * (1 - self._below(most))

    def pairs(self, window: int | None = None) -> float:
        """Mean number of (query, key) pairs that causal attention sees: half the square of the length, or within a window half of
        its square and then a band as wide."""
        if window is not None and window < self.longest:
            # Where longer sequences are left out, they are counted as cut: with a window the difference is small.
            return self._square(window) / 2 + window * (self.cut_at(self.longest) - self.cut_at(window))
        return (self._mean_of_kept(2) if self.leaves_out else self._square(self.longest)) / 2

    def above(self, length: float) -> float:
        """Share of the sequences that are longer than `length`, which nothing is beyond `longest`."""
        return 1 - self._below(length) if length < self.longest else 0.0

    def at(self, share: float) -> float:
        """The length that this share of the sequences, between 0 and 1, does not exceed, cut at the longest; a token at least."""
        if self.leaves_out:
            raise ValueError("lengths of which longer ones are left out are not drawn")
        return max(1.0, min(math.exp(self._centre + SPREAD * _STANDARD.inv_cdf(share)), float(self.longest)))

    @property
    def _centre(self) -> float:
        """Mean of the logarithm."""
        return math.log(self.mean) - SPREAD**2 / 2

    def _below(self, length: float) -> float:
        return _normal((math.log(length) - self._centre) / SPREAD) if length > 0 else 0.0

    def _part(self, power: int, most: float) -> float:
        """Mean of length^power over all sequences, those above `most` counted as 0."""
        moment = math.exp(power * self._centre + (power * SPREAD) ** 2 / 2)
        return moment * _normal((math.log(most) - self._centre) / SPREAD - power * SPREAD)

    def _mean_of_kept(self, power: int) -> float:
        """Mean of length^power over what is not left out; of the longest where hardly anything is that short."""
        return self._part(power, self.longest) / self.kept if self.kept else float(self.longest**power)

    def _square(self, most: float) -> float:
        """Mean of the squared length where longer sequences are cut at `most`."""
        return self._part(2, most) + most**2 * (1 - self._below(most))


def _normal(value: float) -> float:
    """Share of a standard normal distribution below `value`."""
    return (1 + math.erf(value / math.sqrt(2))) / 2
