"""The graders of a simulated loop: so many verdicts are worked on at once, and further answers wait in the order in which they
came, as in the pools of tulu/grading/pool.py and tulu/rollout/graders.py."""

from heapq import heappush, heapreplace


class Graders:
    """So many graders, each of which takes so many seconds for one answer."""

    def __init__(self, count: int, seconds: float) -> None:
        self.count, self.seconds = count, seconds
        self._free: list[float] = []
        """A heap: when each grader that has had an answer is free. One without is not counted before it gets its first."""
        self._given = 0.0
        """Seconds of work that they got."""

    def grade(self, now: float, answers: int) -> float:
        """Give them so many answers; returns when they all have their verdicts."""
        last = now
        if not self.seconds:
            return last
        for _ in range(answers):
            if len(self._free) < self.count and (not self._free or self._free[0] > now):
                ends = now + self.seconds
                heappush(self._free, ends)
            else:
                ends = max(now, self._free[0]) + self.seconds
                heapreplace(self._free, ends)
            last = max(last, ends)
        self._given += answers * self.seconds
        return last

    def busy(self, now: float) -> float:
        """Time in which graders have worked so far, added up."""
        return self._given - sum(max(0.0, free - now) for free in self._free)
