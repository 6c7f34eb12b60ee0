"""Which prompts are drawn, and which of them a step trains on: one record a prompt, from drawing to training.

    drawn -> sampling -> sampled -> graded -> trained       with `refill`, a group without signal is set aside instead

**How many.** At most (max_staleness + 1) × prompts are past drawing and not yet trained. That bounds how old a rollout gets.

**Which.** A step takes the oldest groups that are graded, in the order of drawing, if those that it passes over can still all be
trained in time: a prompt drawn with the weights of step v is trained by step v + max_staleness + 1. Else it waits for them. So
a long completion is passed over for some steps, and never dropped: over a run, what is trained is what was sampled, whatever its
length. With max_staleness 0 every prompt is due in the next step, which therefore waits for all.

Nothing here does anything: it says what is to be done, and is told what was.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tulu.config.schema import Rlvr
from tulu.rollout.problem_order import ProblemOrder
from tulu.rollout.sampler import Graded, Rollout
from tulu.types import Completion

State = Literal["drawn", "sampling", "sampled", "graded"]
STATES: tuple[State, ...] = ("drawn", "sampling", "sampled", "graded")

MAX_ROUNDS = 8
"""How often a prompt is replaced, because its group or that of its replacement teaches nothing, before its step goes without."""


@dataclass
class Draw:
    """One prompt that was drawn, and what is known of its completions."""

    position: int
    """Its place in the endless order of problems."""
    place: int
    """Which problem that is, by its place among all of them."""
    first: int
    """The place of the first prompt that was drawn together with it, from which their seed follows."""
    version: int
    """The version of the weights when it was drawn; no token of it is sampled with older ones."""
    round: int = 1
    """1 for a prompt that replaces none, else one more than that of the one that it replaces."""
    completions: dict[int, Completion] = field(default_factory=dict)
    """Those that ended, by their place within the group."""
    faults: dict[int, str] = field(default_factory=dict)
    """Why no engine finished a completion, for those that were given up."""
    begun: dict[int, Completion] = field(default_factory=dict)
    """What is known of those that were cut, and go on from there."""
    sent: dict[int, float] = field(default_factory=dict)
    """Since when an engine has had those that it works on."""
    grading_since: float | None = None
    """Since when its verifiers have had it, by the monotonic clock."""
    graded: Graded | None = None
    rollout: Rollout | None = None

    def state(self, samples: int) -> State:
        """Where it stands; `samples` are the completions of a group."""
        if self.rollout is not None:
            return "graded"
        if len(self.completions) == samples:
            return "sampled"
        return "sampling" if self.sent or self.completions else "drawn"


@dataclass(frozen=True)
class StepDraws:
    """What one step trains on."""

    trained: Sequence[Draw]
    aside: Sequence[Draw]
    """Those that were set aside since the step before took its own."""


class Queue:
    """The prompts between drawing and training."""

    def __init__(
        self, prompts: int, max_staleness: int, total: int, order: ProblemOrder, step: int = 0, refill: bool = True
    ) -> None:
        """`total` steps of `prompts` groups, of which `step` are done; without `refill` nothing replaces what is set aside."""
        self.prompts, self.max_staleness, self.total = prompts, max_staleness, total
        self.order, self.step, self.refill = order, step, refill
        self.drawn = 0
        """Prompts that were drawn since the run began."""
        self.records: dict[int, Draw] = {}
        """Every prompt that is drawn and not trained, by position, in the order of drawing."""
        self.waiting: dict[int, Draw] = {}
        """Those of them that no step has taken and that are not set aside."""
        self.aside: list[Draw] = []
        self.planned: deque[StepDraws] = deque()
        """The steps that a session which died had begun: they are done again with the same prompts."""
        self.training: StepDraws | None = None
        self._refills: list[int] = []
        """The rounds of the prompts set aside that are to be replaced."""
        self._given_up = 0
        """Groups that the next steps go without."""

    @classmethod
    def of(cls, stage: Rlvr, total: int, problems: int, step: int = 0) -> "Queue":
        """The queue of a recipe's stage, of so many steps over so many problems."""
        return cls(stage.prompts, stage.max_staleness, total, ProblemOrder(problems, stage.seed), step, stage.refill)

    # -- drawing -----------------------------------------------------------------------------------------------

    def wanted(self) -> int:
        """How many prompts may be drawn now."""
        if self.max_staleness == 0 and any(draw.rollout is None for draw in self.waiting.values()):
            # Rounds: what is drawn, and with which seed, then depends on no engine being faster than another.
            return 0
        ahead = min(self.max_staleness + 1, self.total - self.step) * self.prompts
        steps = len(self.planned) + (self.training is not None)
        return max(0, ahead - self._given_up - len(self.waiting) - steps * self.prompts)

    def draw(self, count: int, version: int) -> list[Draw]:
        """The next `count` prompts, drawn when the engines' weights have this version."""
        rounds = [before + 1 for before in self._refills[:count]]
        del self._refills[:count]
        rounds += [1] * (count - len(rounds))
        positions = range(self.drawn, self.drawn + count)
        made = [Draw(at, self.order.at(at), self.drawn, version, number) for at, number in zip(positions, rounds, strict=True)]
        self.drawn += count
        self._add(made)
        return made

    def _add(self, draws: Iterable[Draw]) -> None:
        for draw in draws:
            self.records[draw.position] = self.waiting[draw.position] = draw

    # -- grading -----------------------------------------------------------------------------------------------

    def grade(self, draw: Draw, graded: Graded, rollout: Rollout, teaches: bool) -> None:
        """A group has its grades. One that teaches nothing is set aside, and with `refill` replaced, though not for ever."""
        draw.graded, draw.rollout = graded, rollout
        if teaches or draw.position not in self.waiting:
            return
        self.aside.append(self.waiting.pop(draw.position))
        if self.refill and draw.round < MAX_ROUNDS:
            self._refills.append(draw.round)
        else:
            self._given_up += 1

    # -- training ----------------------------------------------------------------------------------------------

    def next_step(self) -> StepDraws | None:
        """What the next step is to train on; None while that must be waited for."""
        if self.planned:
            return self.planned[0]
        graded = [draw for draw in self.waiting.values() if draw.rollout is not None]
        # A step goes without the groups that were given up, unless others are due in it that later steps would train too late.
        for need in range(max(0, self.prompts - self._given_up), min(self.prompts, len(graded)) + 1):
            chosen = {draw.position for draw in graded[:need]}
            if self._in_time([draw for draw in self.waiting.values() if draw.position not in chosen]):
                return StepDraws(graded[:need], sorted(self.aside, key=lambda draw: draw.position))
        return None

    def _in_time(self, left: Sequence[Draw]) -> bool:
        """Whether all of these can be trained in time after the next step, `prompts` a step in the order of drawing."""
        after = self.step + 2
        return all(draw.version + self.max_staleness + 1 >= after + place // self.prompts for place, draw in enumerate(left))

    def begin(self, step: StepDraws) -> None:
        """The next step trains on these."""
        if self.planned:
            self.planned.popleft()
        else:
            self._take(step)
        self.training = step

    def plan(self, trained: Iterable[int], aside: Iterable[int]) -> None:
        """A session that died had begun to train a step on these, by their positions."""
        step = StepDraws([self.records[position] for position in trained], [self.records[position] for position in aside])
        self._take(step)
        self.planned.append(step)

    @property
    def can_do_again(self) -> bool:
        """Whether the rollouts of all steps that a session which died had begun are there."""
        return all(draw.rollout is not None for step in self.planned for draw in step.trained)

    def put_back(self) -> None:
        """The rollouts of steps that were begun are lost, so that none of these is done again: their prompts wait once more.

        Groups that were set aside have been replaced, and do not.
        """
        self.waiting |= {draw.position: draw for step in self.planned for draw in step.trained}
        self.waiting = dict(sorted(self.waiting.items()))
        self.planned.clear()

    def _take(self, step: StepDraws) -> None:
        for draw in step.trained:
            del self.waiting[draw.position]
        # What is given up beyond one step, the steps after it go without.
        self.aside, self._given_up = [], max(0, self._given_up - (self.prompts - len(step.trained)))

    def end(self) -> None:
        """The step is trained, and the engines have the new weights."""
        for draw in (*self.training.trained, *self.training.aside) if self.training else ():
            del self.records[draw.position]
        self.training = None
        self.step += 1

    # -- what a checkpoint holds -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What `restore` needs, between two steps; completions and grades stand elsewhere (journal.py)."""
        rows = [[draw.position, draw.place, draw.first, draw.version, draw.round] for draw in self.records.values()]
        planned = [[[draw.position for draw in part] for part in (step.trained, step.aside)] for step in self.planned]
        aside = [draw.position for draw in self.aside]
        return {
            "drawn": self.drawn,
            "draws": rows,
            "planned": planned,
            "aside": aside,
            "refills": self._refills,
            "given_up": self._given_up,
            "retired": self.order.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned. Checkpoints of earlier versions say only how many were drawn."""
        self.drawn = state.get("drawn", 0)
        self.order = ProblemOrder(self.order.problems, self.order.seed, state.get("retired", ()))
        self._add(Draw(*row) for row in sorted(state.get("draws", [])))
        for trained, aside in state.get("planned", []):
            self.aside = [self.waiting.pop(position) for position in aside]
            self.plan(trained, aside)
        self.aside = [self.waiting.pop(position) for position in state.get("aside", [])]
        self._refills, self._given_up = list(state.get("refills", [])), state.get("given_up", 0)
