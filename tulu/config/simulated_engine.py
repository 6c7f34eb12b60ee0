"""An engine of a simulated loop: it goes from the end of one answer to the end of the next."""

from heapq import heappop, heappush
from typing import Protocol

from tulu.config.simulated_draws import Drawn


class Speed(Protocol):
    """How fast an engine is (config/decoding.py)."""

    def step_seconds(self, writing: float, cached: float) -> float:
        """A decoding step of so many answers, which have so many tokens in the cache together."""
        ...

    def prompt_seconds(self, tokens: float) -> float:
        """Reading a prompt."""
        ...


class Engine:
    """An engine between two events. Its clock counts the tokens that each of its answers got since the beginning."""

    def __init__(self, number: int, room: int) -> None:
        self.number, self.room = number, room
        self.running: list[tuple[float, int, float, Drawn, float]] = []
        """A heap of answers: (clock at its end, a number of its own, `versions` at its begin, group, tokens in the cache)."""
        self.clock = 0.0
        self.cached = 0.0
        """Tokens in the cache, those of an answer's prompt included."""
        self.busy = 0.0
        """Time in which it had something to write."""
        self.version, self.versions = 0, 0.0
        """The version of its weights, and the same added up over all ticks of the clock."""
        self.stamp = 0
        """Tells which of the ends that were expected is still true."""
        self.paused = False
        self._since = self._begins = 0.0
        """Until when time has passed, and from when on it writes, because prompts are read first."""
        self._pace = 1.0

    def advance(self, now: float) -> None:
        """Let time pass until `now`, before which none of its answers ends."""
        if self.running:
            self.busy += now - self._since
            passed = now - max(self._since, self._begins)
            if passed > 0 and not self.paused:
                self._move(min(passed / self._pace, self.running[0][0] - self.clock))
        self._since = now

    def _move(self, tokens: float) -> None:
        self.clock += tokens
        self.cached += tokens * len(self.running)
        self.versions += tokens * self.version

    def add(self, now: float, number: int, drawn: Drawn, length: float, prompt: float, reading: float) -> None:
        """Begin an answer, the prompt of which takes this time to read."""
        self._begins = max(self._begins, now) + reading
        heappush(self.running, (self.clock + length, number, self.versions, drawn, prompt + length))
        self.cached += prompt
        self.room -= 1

    def next_end(self, now: float, speed: Speed) -> float:
        """When its next answer ends if nothing happens before."""
        self.stamp += 1
        count, left = len(self.running), self.running[0][0] - self.clock
        # The cache grows by a token of each answer in every decoding step, so that half of it is the mean.
        self._pace = speed.step_seconds(count, self.cached + count * left / 2)
        return max(now, self._begins) + left * self._pace

    def ended(self, now: float) -> list[Drawn]:
        """Let the answers end that end now; returns the groups that are whole by that."""
        self.busy += now - self._since
        self._since = now
        self._move(self.running[0][0] - self.clock)
        groups = []
        while self.running and self.running[0][0] <= self.clock + 1e-6:
            _, _, versions, drawn, cached = heappop(self.running)
            drawn.versions += self.versions - versions
            drawn.missing -= 1
            self.cached -= cached
            self.room += 1
            if not drawn.missing:
                groups.append(drawn)
        return groups
