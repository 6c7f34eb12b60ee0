"""How many requests an engine works on at once: more of them as long as that makes it sample faster."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tulu.rollout.fleet import Request

GROWTH = 1.5
"""Factor of the next try."""
GAIN = 1.05
"""A try is kept if it makes the engine faster by this factor."""
WINDOW_SECONDS = 3.0
"""Time over which the speed with one limit is measured."""
REST_WINDOWS = 20
"""Measurements after which a larger limit is tried again, because lengths change while a model learns."""


@dataclass
class Admission:
    """The limit of one engine. It climbs while tokens per second rise, and falls where the engine has no memory for more."""

    limit: int = 256
    most: int = 4096
    speed: float = 0.0
    """Tokens per second with the limit before."""
    before: int = 0
    """The limit before the one that is tried now; 0 while none is tried."""
    rest: int = 0
    began: float | None = None
    """When the measurement began; None while the engine has fewer requests than the limit, so that nothing can be measured."""
    tokens: int = 0

    def observe(self, running: int, waiting: int, tokens: int, now: float) -> None:
        """Take note of what the engine does: its requests, those of them without room, and all tokens it has sampled."""
        if waiting > 0 and running > waiting:
            # The engine has no memory for keys and values of so many. What waits inside it is lost to other engines.
            self.limit, self.before, self.began = max(1, running - waiting), 0, None
            self.rest = REST_WINDOWS
            return
        if running < 0.75 * self.limit:
            self.began = None
            return
        if self.began is None or tokens < self.tokens:
            self.began, self.tokens = now, tokens
            return
        if now - self.began >= WINDOW_SECONDS:
            self._judge((tokens - self.tokens) / (now - self.began))
            self.began, self.tokens = now, tokens

    def _judge(self, speed: float) -> None:
        if self.before and speed < self.speed * GAIN:
            self.limit, self.before, self.rest = self.before, 0, REST_WINDOWS
            return
        if self.rest > 0:
            self.rest, self.speed = self.rest - 1, speed
            return
        if self.limit < self.most:
            self.before, self.speed = self.limit, speed
            self.limit = min(self.most, max(self.limit + 1, int(self.limit * GROWTH)))


def shared_out(waiting: deque[Request], room: Sequence[int]) -> dict[int, list[Request]]:
    """Take waiting requests for the engines with the most room, by number; those of one prompt stay together: it is read once."""
    left = dict(enumerate(room))
    batches: dict[int, list[Request]] = {}
    chosen, problem = 0, None
    while waiting and any(left.values()):
        if waiting[0].problem_id != problem or left[chosen] <= 0:
            chosen = max(left, key=lambda index: left[index])
            problem = waiting[0].problem_id
        batches.setdefault(chosen, []).append(waiting.popleft())
        left[chosen] -= 1
    return batches
