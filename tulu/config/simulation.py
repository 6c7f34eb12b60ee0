"""The RLVR loop as a simulation of its events: how long a step takes, and who waits for whom.

Prompts are drawn and trained by the rules of the stream of rollouts (simulated_draws.py). Engines go from one decoding step to
the next, in each of which every answer that they write gets one token; what ends makes room for what waits. A group is graded
once all of its answers ended, each of which waits for a free grader.

The learner trains when a step's groups are there, and then the engines stand still until they have the new weights; what they
write goes on with these.

Nothing here is random: what is sampled is given with the loop, so that loops can be compared on the same answers.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush

from tulu.config.simulated_draws import Drawn, Draws
from tulu.config.simulated_engine import Engine, Speed
from tulu.config.simulated_graders import Graders

Sampled = tuple[Sequence[float], bool]
"""The tokens of each answer of a group, and whether it teaches something."""


@dataclass(frozen=True)
class Loop:
    """What is simulated."""

    prompts: int
    max_staleness: int
    sampled: Callable[[int], Sampled]
    """What becomes of the prompt at a place in the order of drawing."""
    engines: int
    room: int
    """Answers that an engine writes at once."""
    speed: Speed
    train_seconds: Callable[[Sequence[float]], float]
    """What the learner takes for groups of so many tokens each."""
    prompt: float = 0.0
    """Tokens of a prompt."""
    sync_seconds: float = 0.0
    grading_seconds: float = 0.0
    """From the last verdict of a group to its grades."""
    graders: int = 1
    """Answers that are graded at once."""
    verdict_seconds: float = 0.0
    """What each of these takes."""
    in_turn: bool = False
    """Whether the engine stands in the learner's process, where answers are graded once all of them ended."""
    refill: bool = True


@dataclass(frozen=True)
class Step:
    """One step of the learner."""

    seconds: float
    waited: float
    """For rollouts."""
    groups: int
    tokens: float
    """Of the answers that it trained on."""
    lag: float
    """Steps between the weights that sampled a token and those that it trains, summed over those tokens."""


@dataclass(frozen=True)
class Outcome:
    """What was found, as the mean of some steps."""

    step_seconds: float
    learner_idle: float
    """Share of the time in which the learner waits for rollouts, as `learner_idle` in the metrics of a run."""
    engines_idle: float
    """Share of the time in which an engine has nothing to write, as `engines_idle` there."""
    graders_idle: float
    """Share of the time in which a grader has no answer to grade."""
    staleness: float
    """Of a trained token."""
    groups: float
    """That a step trains on."""
    tokens: float
    """Of the answers in them."""


class Simulation:
    """A loop, moved from event to event."""

    def __init__(self, loop: Loop, total: int) -> None:
        """`total` steps are trained; near the end nothing is drawn that they do not need."""
        self.loop, self.now, self.version = loop, 0.0, 0
        self.draws = Draws(loop.prompts, loop.max_staleness, total, loop.refill)
        self.engines = [Engine(number, loop.room) for number in range(loop.engines)]
        self.graders = Graders(loop.graders, loop.verdict_seconds)
        self.steps: list[Step] = []
        self._pending: deque[Drawn] = deque()
        """Prompts of which not all answers are with an engine."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._free: float | None = 0.0
        """Since when the learner waits; None while it does not."""
        self._syncing = False
        self._ended: list[Drawn] = []
        """Groups whose answers have all ended, and that no grader has yet."""
        self._graded: list[Drawn] = []
        """What was graded while the engines took new weights."""
        self._step_began = self._waited = 0.0
        self._trained: Sequence[Drawn] = ()
        self._draw()

    def run(self, steps: int) -> None:
        """Go on until so many steps are trained."""
        while len(self.steps) < steps:
            self.now, _, happen = heappop(self._events)
            happen()

    def busy(self) -> float:
        """Time in which the engines had something to write, added up."""
        for engine in self.engines:
            engine.advance(self.now)
        return sum(engine.busy for engine in self.engines)

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (time, self._count, happen))

    # -- engines -----------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        wanted = self.draws.wanted()
        for _ in range(wanted):
            self._pending.append(self.draws.draw(self.version, *self.loop.sampled(self.draws.drawn)))
        if wanted:
            self._send(self.engines)

    def _send(self, engines: Sequence[Engine]) -> None:
        """Give what waits to these engines, the one with the most room first; no other has room."""
        changed: set[int] = set()
        while self._pending:
            drawn = self._pending[0]
            engine = max(engines, key=lambda one: one.room) if len(engines) > 1 else engines[0]
            if engine.room <= 0:
                break
            if engine.number not in changed:
                engine.advance(self.now)
                changed.add(engine.number)
            for length in drawn.lengths[drawn.sent : drawn.sent + engine.room]:
                is_read = drawn.read_by == engine.number
                reading = 0.0 if is_read else self.loop.speed.prompt_seconds(self.loop.prompt)
                drawn.read_by = engine.number
                self._count += 1
                engine.add(self.now, self._count, drawn, length, self.loop.prompt, reading)
                drawn.sent += 1
            if drawn.sent == len(drawn.lengths):
                self._pending.popleft()
        for number in changed:
            self._expect(self.engines[number])

    def _expect(self, engine: Engine) -> None:
        """Say when the next answer of an engine ends."""
        if engine.running and not engine.paused:
            end = engine.next_end(self.now, self.loop.speed)
            self._at(end, partial(self._end, engine, engine.stamp))

    def _end(self, engine: Engine, stamp: int) -> None:
        if engine.stamp != stamp or engine.paused:
            return
        if groups := engine.ended(self.now):
            self._ended += groups
            # After all that ends at the same time.
            self._at(self.now, self._verify)
        if self._pending:
            self._send([engine])
        if engine.stamp == stamp:
            self._expect(engine)

    # -- graders -----------------------------------------------------------------------------------------------

    def _verify(self) -> None:
        """Give the groups that have ended to the graders."""
        if self.loop.in_turn and (self._pending or any(engine.running for engine in self.engines)):
            return
        for drawn in self._ended:
            verified = self.graders.grade(self.now, len(drawn.lengths))
            self._at(verified + self.loop.grading_seconds, partial(self._grade, drawn))
        self._ended.clear()

    def _grade(self, drawn: Drawn) -> None:
        if self._syncing:
            # What collects grades stands still too.
            self._graded.append(drawn)
            return
        self.draws.grade(drawn)
        self._draw()
        self._take()

    # -- the learner -------------------------------------------------------------------------------------------

    def _take(self) -> None:
        """Begin the next step if the learner waits for it and it is there."""
        step = None if self._free is None else self.draws.next_step()
        if step is None or self._free is None:
            return
        self._waited, self._free, self._trained = self.now - self._free, None, step
        self.draws.begin(step)
        groups = [drawn.tokens + self.loop.prompt for drawn in step]
        self._at(self.now + (self.loop.train_seconds(groups) if groups else 0.0), self._sync)

    def _sync(self) -> None:
        self._syncing = True
        for engine in self.engines:
            engine.advance(self.now)
            engine.paused = True
        self._at(self.now + self.loop.sync_seconds, self._synced)

    def _synced(self) -> None:
        self.version += 1
        self._syncing = False
        for engine in self.engines:
            engine.advance(self.now)
            engine.version, engine.paused = self.version, False
            self._expect(engine)
        tokens = sum(drawn.tokens for drawn in self._trained)
        lag = self.draws.step * tokens - sum(drawn.versions for drawn in self._trained)
        self.steps.append(Step(self.now - self._step_began, self._waited, len(self._trained), tokens, lag))
        self._step_began = self._free = self.now
        self.draws.end()
        for drawn in self._graded:
            self.draws.grade(drawn)
        self._graded.clear()
        self._draw()
        self._take()


def simulate(loop: Loop, skip: int, steps: int) -> Outcome:
    """The mean of so many steps, after the first ones, in which the loop fills, and before the last ones, in which it empties."""
    running = Simulation(loop, skip + steps + loop.max_staleness + 1)
    running.run(skip)
    began, busy, graded = running.now, running.busy(), running.graders.busy(running.now)
    running.run(skip + steps)
    seconds = running.now - began
    found = running.steps[skip:]
    tokens = sum(step.tokens for step in found)
    return Outcome(
        step_seconds=seconds / steps,
        learner_idle=sum(step.waited for step in found) / seconds,
        engines_idle=max(0.0, 1 - (running.busy() - busy) / seconds / loop.engines),
        graders_idle=max(0.0, 1 - (running.graders.busy(running.now) - graded) / seconds / loop.graders),
        staleness=sum(step.lag for step in found) / tokens if tokens else 0.0,
        groups=sum(step.groups for step in found) / steps,
        tokens=tokens / steps,
    )
