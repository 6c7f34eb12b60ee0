"""Work that the main process hands to all processes of a learner: each does its share, and the main one gets all results.

The stream of rollouts lives in the main process. The others `serve` it until it releases them with what they train on:

    main:    run("grade", groups) ... run("grade", groups) ... release(parts)
    others:  serve() ---------------------------------------> their part
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tulu.model.parallel import Parallel
from tulu.rollout.engine import Part, PartwiseEngine, Places, RolloutEngine, parts_of
from tulu.types import Group, Problem, SamplingParams

Job = Callable[..., Sequence[Any]]
"""Items, and what else the main process says of all of them, to one result for each item."""
KEEP_ALIVE = 60.0
"""Seconds after which processes that have nothing to do are told to go on waiting; their connection has a deadline of its own."""

TOGETHER_SECONDS = 5.0
"""How long each process's engine samples until the main process hears what has ended."""


class Team:
    """The processes of a learner, and the jobs that each can do."""

    def __init__(self, parallel: Parallel) -> None:
        self.parallel = parallel
        self.jobs: dict[str, Job] = {}
        """What each process can do, by name; all have the same names."""
        self._told = time.monotonic()

    def run(self, job: str, items: Sequence[Any], *how: Any) -> list[Any]:
        """In the main process: one result for each item, of which every process does each world-th one."""
        world = self.parallel.world
        self._tell([(job, items[rank::world], how) for rank in range(world)])
        results: list[Any] = [None] * len(items)
        for rank, part in enumerate(self.parallel.bring(self._do(job, items[::world], how))):
            results[rank::world] = part
        return results

    def keep_alive(self) -> None:
        """In the main process, while it waits for somebody else: tell the others to go on waiting."""
        if self.parallel.world > 1 and time.monotonic() - self._told > KEEP_ALIVE:
            self._tell([("wait", (), ())] * self.parallel.world)

    def release(self, parts: Sequence[Any]) -> Any:
        """In the main process: end the others' `serve`, each with its part; returns the main process's own."""
        self._tell([("release", part, ()) for part in parts])
        return parts[0]

    def serve(self) -> Any:
        """In every other process: do its shares of what the main process runs, and return the part it is released with."""
        while True:
            job, items, how = self.parallel.hand_out(None)
            if job == "release":
                return items
            if job != "wait":
                self.parallel.bring(self._do(job, items, how))

    def _do(self, job: str, items: Sequence[Any], how: Sequence[Any]) -> Sequence[Any]:
        return self.jobs[job](items, *how) if items else []

    def _tell(self, orders: Sequence[Any]) -> None:
        self._told = time.monotonic()
        self.parallel.hand_out(orders)


class SharedEngine:
    """The engines in all processes of a learner as one engine, which the main process asks."""

    def __init__(self, engine: RolloutEngine, team: Team) -> None:
        """Every process makes one, of its own engine."""
        self.engine = engine
        self.team = team
        self.exact = isinstance(engine, PartwiseEngine) and engine.exact
        self._parts: Iterator[Part] = iter(())
        """What this process's engine samples at present."""
        team.jobs |= {"generate": engine.generate, "begin": self._begin, "go on": self._go_on}

    @property
    def version(self) -> int:
        """The version of the engine in this process, which is that of all."""
        return self.engine.version

    @property
    def restarts(self) -> int:
        """How often the engine of this process was started again."""
        return int(getattr(self.engine, "restarts", 0))

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Sample n completions of each problem; every process samples its share. For the main process alone."""
        return self.team.run("generate", _plain(problems), n, params)

    def sample(self, problems: Sequence[Problem], n: int, params: SamplingParams, wanted: Places) -> Iterator[Part]:
        """The same completions as they end in any process, as far as that is told before all have ended.

        Of an exact engine in several processes it is not: what is left would be shared out anew after a kill, into other batches.
        """
        world = self.team.parallel.world
        if world == 1:
            yield from parts_of(self.engine, _plain(problems), n, params, wanted)
            return
        if self.exact or not isinstance(self.engine, PartwiseEngine):
            groups = self.generate(problems, n, params)
            yield [(index, sample, groups[index].completions[sample]) for index, places in enumerate(wanted) for sample in places]
            return
        self.team.run("begin", list(zip(_plain(problems), wanted, strict=True)), n, params)
        ended = False
        while not ended:
            answers = self.team.run("go on", [None] * world, TOGETHER_SECONDS)
            ended = all(done for _, done in answers)
            yield [
                (index * world + rank, sample, completion)
                for rank, (part, _) in enumerate(answers)
                for index, sample, completion in part
            ]

    def _begin(self, shares: Sequence[tuple[Problem, Sequence[int]]], n: int, params: SamplingParams) -> Sequence[None]:
        problems, wanted = [problem for problem, _ in shares], [places for _, places in shares]
        self._parts = parts_of(self.engine, problems, n, params, wanted)
        return [None] * len(shares)

    def _go_on(self, items: Sequence[None], seconds: float) -> Sequence[tuple[Part, bool]]:
        """What ends here within so many seconds, and whether that is all."""
        found, until = Part(), time.monotonic() + seconds
        for part in self._parts:
            found += part
            if time.monotonic() >= until:
                return [(found, False)]
        return [(found, True)]

    def sync(self, weights: Any, version: int) -> None:
        """Give this process's engine the weights; every process must."""
        self.engine.sync(weights, version)

    def close(self) -> None:
        """Close this process's engine."""
        self.engine.close()


def _plain(problems: Sequence[Problem]) -> list[Problem]:
    """Ids and prompts, which is what engines read; the rest of a problem need not travel."""
    return [Problem(problem.id, (), problem.prompt, None, ()) for problem in problems]
