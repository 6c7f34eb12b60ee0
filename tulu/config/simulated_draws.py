"""Which prompts a simulated loop draws, and on which a step trains: the rules of tulu/rollout/draws.py, without what is drawn.

A test moves both side by side and compares what they decide.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

MAX_ROUNDS = 8
"""How often a prompt is replaced whose group teaches nothing (tulu/rollout/draws.py)."""


@dataclass(slots=True)
class Drawn:
    """A prompt that was drawn."""

    position: int
    version: int
    """The version of the weights when it was drawn."""
    round: int
    lengths: Sequence[float]
    """Tokens of each of its answers."""
    teaches: bool
    sent: int = 0
    """Answers that the engines got."""
    missing: int = 0
    """Those that are not finished."""
    read_by: int = -1
    """The engine that read its prompt last."""
    versions: float = 0.0
    """The versions of the weights of all its tokens, added up."""
    graded: bool = False

    @property
    def tokens(self) -> float:
        """Tokens of its answers."""
        return sum(self.lengths)


class Draws:
    """The prompts between drawing and training."""

    def __init__(self, prompts: int, max_staleness: int, total: int, refill: bool = True) -> None:
        """`total` steps of `prompts` groups; without `refill` nothing replaces what is set aside."""
        self.prompts, self.max_staleness, self.total, self.refill = prompts, max_staleness, total, refill
        self.step = 0
        self.drawn = 0
        self.waiting: dict[int, Drawn] = {}
        """By position, in the order of drawing."""
        self.training = False
        self._graded = 0
        """How many of those that wait are graded."""
        self._refills: list[int] = []
        self._given_up = 0

    def wanted(self) -> int:
        """How many prompts may be drawn now."""
        if self.max_staleness == 0 and self._graded < len(self.waiting):
            return 0
        ahead = min(self.max_staleness + 1, self.total - self.step) * self.prompts
        return max(0, ahead - self._given_up - len(self.waiting) - self.training * self.prompts)

    def draw(self, version: int, lengths: Sequence[float], teaches: bool) -> Drawn:
        """The next prompt."""
        number = self._refills.pop(0) + 1 if self._refills else 1
        made = Drawn(self.drawn, version, number, lengths, teaches, missing=len(lengths))
        self.waiting[self.drawn] = made
        self.drawn += 1
        return made

    def grade(self, drawn: Drawn) -> None:
        """A group has its grades; one that teaches nothing is set aside, and with `refill` replaced."""
        drawn.graded = True
        self._graded += 1
        if drawn.teaches:
            return
        del self.waiting[drawn.position]
        self._graded -= 1
        if self.refill and drawn.round < MAX_ROUNDS:
            self._refills.append(drawn.round)
        else:
            self._given_up += 1

    def next_step(self) -> Sequence[Drawn] | None:
        """What the next step trains on; None while that must be waited for."""
        graded = [drawn for drawn in self.waiting.values() if drawn.graded] if self._graded >= self._least else []
        for need in range(self._least, min(self.prompts, len(graded)) + 1):
            if self._in_time({drawn.position for drawn in graded[:need]}):
                return graded[:need]
        return None

    @property
    def _least(self) -> int:
        """Groups that the next step must have, those off that were given up."""
        return max(0, self.prompts - self._given_up)

    def _in_time(self, chosen: Collection[int]) -> bool:
        """Whether the others can be trained in time after these, `prompts` a step in the order of drawing."""
        left = 0
        for drawn in self.waiting.values():
            if drawn.position not in chosen:
                if drawn.version + self.max_staleness + 1 < self.step + 2 + left // self.prompts:
                    return False
                left += 1
        return True

    def begin(self, trained: Sequence[Drawn]) -> None:
        """The next step trains on these."""
        for drawn in trained:
            del self.waiting[drawn.position]
        self._graded -= len(trained)
        self._given_up, self.training = max(0, self._given_up - (self.prompts - len(trained))), True

    def end(self) -> None:
        """The step is trained, and the engines have the new weights."""
        self.training = False
        self.step += 1
