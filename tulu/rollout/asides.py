"""Requests to the engines of a run that are no rollouts, such as those of a look at a task, kept apart from the stream.

The stream's dispatcher collects whatever the engines have ended, so it asks here first whose it is. Nothing of this is written to
the journal: a session that dies in a look does it again.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace

from tulu import deadlines
from tulu.rollout.episode import acting_told
from tulu.rollout.episodes import acting_in
from tulu.rollout.fleet import Ended, Finished, Fleet, Request, Returned
from tulu.types import Completion, Problem, SamplingParams

PREFIX = "aside"
MOST_OPEN = 256
"""Requests that the engines have at a time."""
MOST_LOST = 3
"""How often an engine may fail that works on a request until it is given up."""


class Asides:
    """Single completions of some problems, by the engines that sample the rollouts."""

    def __init__(self, fleet: Fleet, seconds: float) -> None:
        """All that is asked at once is given up after so many seconds without any answer."""
        self.fleet, self.seconds = fleet, seconds
        self.done: dict[str, Completion] = {}
        self._waiting: deque[Request] = deque()
        self._open: dict[str, Request] = {}
        self._lost = Counter[str]()
        self._rounds = 0
        self._moved_at = 0.0

    def ask(self, problems: Sequence[Problem], params: SamplingParams) -> list[str]:
        """Ask for one completion of each problem; returns the keys under which they will stand in `done`."""
        self._rounds += 1
        self.done, self._moved_at = {}, deadlines.now()
        keys = [f"{PREFIX}-{self._rounds}:{place}" for place in range(len(problems))]
        self._waiting = deque(Request(key, one.id, one.prompt, params) for key, one in zip(keys, problems, strict=True))
        return keys

    @property
    def is_done(self) -> bool:
        """Whether everything that was asked has ended, or is given up."""
        return not self._waiting and not self._open

    def tend(self) -> None:
        """Send what waits, and give up what no engine answers."""
        sent = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_OPEN - len(self._open)))]
        if sent:
            self._open |= {request.key: request for request in sent}
            self.fleet.submit(sent)
        if deadlines.now() - self._moved_at > self.seconds:
            self.fleet.cut([*self._open])
            self._open, self._waiting = {}, deque()

    def takes(self, end: Ended) -> bool:
        """Whether what ended is one of these requests, of which it then takes care."""
        if not end.key.startswith(PREFIX):
            return False
        request = self._open.pop(end.key, None)
        if request is None:
            # It was given up before it came.
            return True
        if isinstance(end, Finished):
            self.done[end.key], self._moved_at = end.completion, deadlines.now()
        elif isinstance(end, Returned) and (lost := self._lost[end.key] + 1) < MOST_LOST:
            self._lost[end.key] = lost
            self._waiting.append(replace(request, begun=end.begun))
        return True

    def told(self) -> str:
        """For what a look waits, in words."""
        acting = acting_in(self.fleet, list(self._open))
        left = len(self._open) + len(self._waiting)
        return ", ".join([f"the engines to answer {left} problems of a look", *acting_told(acting, deadlines.now())])
