"""The stream of rollouts: it keeps the engines busy, grades what ends, and hands the learner one step after the other.

`draws.py` says which prompts are drawn and trained, `pump.py` does it, and whatever ends is on the disk before it counts
(journal.py). The main process of a learner owns the stream; the other processes do their shares of the work (team.py), and get
their shares of each step. A fleet of engines in other processes works while the learner trains: then a thread goes on drawing,
collecting and grading. An engine in the learner's own process works when the learner waits for it.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.dispatch import Dispatch
from tulu.rollout.draws import STATES, Draw, Queue, StepDraws
from tulu.rollout.episodes import Episodes
from tulu.rollout.fleet import Fleet, SyncReport
from tulu.rollout.journal import StreamLog
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.pump import Pump
from tulu.rollout.records import EngineFigures, masked_warning, staleness, summary, sync_figures
from tulu.rollout.sampler import Rollout, RolloutGrader, StepRollouts
from tulu.rollout.status import Status
from tulu.rollout.team import Team
from tulu.types import Completion, Problem, SamplingParams

log = logging.getLogger("tulu")

COLLECT_SECONDS = 0.05
"""How long a fleet in other processes is waited for at a time, and so the learner for the thread that does it."""


@dataclass(frozen=True)
class Taken:
    """The rollouts of all processes in one step, and their places in the order of problems."""

    rollouts: StepRollouts = field(default_factory=StepRollouts)
    sampled: Sequence[int] = ()
    trained: Sequence[int] = ()


class Stream:
    """The rollouts of one run, from drawing to training."""

    def __init__(
        self, fleet: Fleet | None, grader: RolloutGrader, team: Team, queue: Queue, journal: StreamLog, status: Status
    ) -> None:
        """`fleet` is the engine of every process, or the fleet of all of them in the main process and None elsewhere."""
        self.fleet, self.grader, self.team, self.queue = fleet, grader, team, queue
        self.journal, self.status = journal, status
        self.taken = Taken()
        """What all processes together train on in the present step, in the main process; nothing elsewhere."""
        self.pump: Pump | None = None
        """What moves the stream, in the main process."""
        self._local = isinstance(fleet, LocalFleet) or (isinstance(fleet, Episodes) and fleet.is_local)
        self._engines = EngineFigures()
        self._synced: tuple[float, SyncReport] | None = None
        """How long the learner stood still for the last sync, and what that was."""
        self._warns = True
        self._turn, self._wanted = threading.Lock(), threading.Event()
        self._moved, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        team.jobs |= {"grade": grader.grade, "prefer": grader.prefer}
        if team.parallel.is_main:
            assert fleet is not None, "the main process has the engines"
            dispatch = Dispatch(fleet, grader, grader.stage, queue)
            self.pump = Pump(fleet, dispatch, grader, team, queue, journal, beside=not self._local)
            status.ask("queue", self.depths)
            status.ask("engines", self.engines)

    # -- what the learner's loop calls -------------------------------------------------------------------------

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's state, {} at the start of a run. The engines must have been synced."""
        if self.pump is None:
            return
        self.queue.restore(state)
        self.journal.replay(self.queue.step, self.pump.read)
        if not self.queue.can_do_again:
            self.journal.append([{"kind": "put back"}])
            self.queue.put_back()
        found = [len(draw.completions) for draw in self.queue.records.values() if draw.completions]
        if found:
            log.info("%d completions of %d prompts were sampled before and are not sampled again", sum(found), len(found))
        if not self._local:
            self._thread = threading.Thread(target=self._work, name="stream", daemon=True)
            self._thread.start()

    def take(self) -> StepRollouts:
        """This process's share of the next step's rollouts. Raises TuluError if most verdicts are faults of the verifier."""
        if self.pump is None:
            served: StepRollouts = self.team.serve()
            return served
        with self.status.waiting(self._awaited):
            step = self._await_step(self.pump)
        with self._alone(), self.status.waiting("the engines to give the learner their memory"):
            self.pump.fleet.rest()
        own: StepRollouts = self.team.release(self._shares(step))
        return own

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Let the engines sample with these weights from now on; every process must call this."""
        if self.grader.stage.resources.colocated:
            # What torch keeps for later is what the engines on these GPUs need now, and they wake when the main process syncs.
            torch.cuda.empty_cache()
            self.team.parallel.wait()
        if self.pump is None:
            if self.fleet is not None:
                self.fleet.sync(weights, version)
            # Sharded weights are gathered one after the other, by all processes together.
            for _ in weights if self.fleet is None else ():
                pass
            return
        asked = time.monotonic()
        with self._alone(), self.status.waiting("the engines to take the new weights"):
            began = time.monotonic()
            report = self.pump.fleet.sync(weights, version)
            self.pump.dispatch.postpone(time.monotonic() - began)
            if self.queue.training is not None:
                self.queue.end()
        self._synced = time.monotonic() - asked, report

    def answer(self, problems: Sequence[Problem], params: SamplingParams) -> list[Completion | None]:
        """One completion of each problem by the engines of the run, beside the rollouts; None where no engine ended it.

        Every process must call this; all but the main one get [].
        """
        if self.pump is None:
            self.team.serve()
            return []
        asides = self.pump.dispatch.asides
        keys = asides.ask(problems, params)
        with self.status.waiting(asides.told):
            done = False
            while not done:
                with self._alone():
                    if self._error is not None:
                        raise self._error
                    asides.tend()
                    if self._local:
                        self.pump.collect(0.0)
                    # The thread takes a request away before it notes the answer, so only here it is known that none is left.
                    done = asides.is_done
                self.team.keep_alive()
                if not self._local:
                    time.sleep(COLLECT_SECONDS)
        self.team.release([None] * self.team.parallel.world)
        # What the engines did for this is no part of their work on rollouts.
        self._engines.read(self.pump.fleet.states())
        return [asides.done.get(key) for key in keys]

    def checkpoint(self, step: int) -> dict[str, Any]:
        """What a checkpoint that is about to be written holds of the stream."""
        if self.pump is None:
            return {}
        with self._alone():
            self.journal.begin(step, [*self.pump.rows()])
            return self.queue.state()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """While the context lasts, an EngineError says that the engines cannot be trusted: what they sampled is sampled anew."""
        try:
            yield
        except EngineError:
            if self.pump is not None:
                with self._alone():
                    self.journal.forget()
            raise

    def settle(self, oldest: int) -> None:
        """A step has ended; `oldest` is that of the oldest checkpoint that is kept."""
        if self.journal.is_moving:
            with self._alone():
                self.journal.settle(oldest)

    def figures(self, seconds: float, waited: float) -> dict[str, float]:
        """The figures of the step that ended, which took so long, and waited so long for rollouts; in the main process.

        The learner works in what is left of its seconds when it has waited for rollouts and for the sync.
        """
        if self.pump is None:
            return {}
        rollouts = self.taken.rollouts
        tokens = _tokens(rollouts.sampled)
        synced = {} if self._synced is None else sync_figures(*self._synced, seconds)
        worked = max(seconds - waited - synced.get("sync_seconds", 0.0), 1e-9)
        found, env = summary(rollouts), self.grader.stage.env
        if self._warns and (told := masked_warning(rollouts, found["masked"], env.path if env else "")):
            self._warns = False
            log.warning("%s", told)
        return {
            **found,
            **staleness(rollouts, self.queue.step, self.queue.max_staleness),
            "tokens": tokens,
            "seconds": seconds,
            "sampling_seconds": waited,
            "tokens_per_second": tokens / seconds,
            "learner_idle": waited / seconds,
            "learner_tokens_per_second": _tokens(rollouts.trained) / worked,
            **synced,
            **self._engines.read(self.pump.fleet.states()),
            "sent_again": float(self.pump.dispatch.again),
            **{f"queue/{state}": float(count) for state, count in self.depths().items()},
        }

    def close(self) -> None:
        """End the threads. What engines and graders still work on is left to the next session."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self.pump is not None:
            self.pump.close()

    def depths(self) -> dict[str, int]:
        """How many prompts wait in which state."""
        states = [draw.state(self.grader.stage.samples) for draw in list(self.queue.waiting.values())]
        return {state: states.count(state) for state in STATES}

    def engines(self) -> list[dict[str, Any]]:
        """What is known of each engine, as plain values."""
        names = ("name", "version", "status", "running", "restarts", "tokens", "busy_seconds")
        return [{name: getattr(one, name) for name in names} for one in (self.fleet.states() if self.fleet else [])]

    # -- waiting for a step ------------------------------------------------------------------------------------

    def _await_step(self, pump: Pump) -> StepDraws:
        """Wait until the next step's rollouts are there, and begin it; an engine in this process works meanwhile."""
        while True:
            self._moved.clear()
            with self._alone():
                if self._error is not None:
                    raise self._error
                moved = self._local and pump.turn(0.0)
                pump.prefer()
                if (step := self.queue.next_step()) is not None:
                    # What the thread grades from here on belongs to the steps after it.
                    self._begin(step)
                    return step
            self.team.keep_alive()
            if self._local and not moved:
                raise EngineError("the rollout engine is stale: its weights are not the learner's; sync it before sampling")
            if not self._local:
                self._moved.wait(1.0)

    def _begin(self, step: StepDraws) -> None:
        """The next step trains on these, which is written down first unless it is done again after a crash."""
        if not self.queue.planned:
            positions = {"trained": _positions(step.trained), "aside": _positions(step.aside)}
            self.journal.append([{"kind": "step", "step": self.queue.step + 1, **positions}])
        self.queue.begin(step)

    def _awaited(self) -> str:
        """For what the learner waits, in words."""
        waiting = [draw for draw in list(self.queue.waiting.values()) if draw.rollout is None]
        depths = ", ".join(f"{count} {state}" for state, count in self.depths().items() if count)
        oldest = f"; the oldest is {self.pump.dispatch.told(waiting[0])}" if waiting and self.pump else ""
        return f"rollouts ({depths or 'none drawn'}{oldest})"

    def _shares(self, step: StepDraws) -> list[StepRollouts]:
        """Every process's share of a step. What an engine in a learner's process sampled stays in that process."""
        world = self.team.parallel.world
        sampled = sorted([*step.trained, *step.aside], key=lambda draw: draw.position)
        homes = [(draw.position - draw.first if self._local else place) % world for place, draw in enumerate(step.trained)]
        rounds, prompts = max((draw.round for draw in sampled), default=0), self.queue.prompts
        whole = StepRollouts(_rollouts(step.trained), _rollouts(sampled), self.queue.drawn, rounds)
        self.taken = Taken(whole, _positions(sampled), _positions(step.trained))
        if not whole.trained:
            log.warning("no group teaches anything after %d rounds of %d prompts: nothing is trained", rounds, prompts)
        if world == 1:
            return [whole]
        # Any rollout serves as the spare row of a process that has fewer rows than the others.
        spare = [one for one in whole.sampled if all(part.tokens for part in one.group.completions)][:1]
        shares = []
        for rank in range(world):
            places = [place for place, home in enumerate(homes) if home == rank]
            part = [whole.trained[place] for place in places]
            shares.append(StepRollouts(part, part or spare, self.queue.drawn, rounds, places, len(homes)))
        return shares

    # -- working beside the learner ----------------------------------------------------------------------------

    def _work(self) -> None:
        """Move the stream, in a thread, until it ends or something fails."""
        assert self.pump is not None
        try:
            while not self._ended.is_set():
                with self._turn:
                    moved = self.pump.turn(COLLECT_SECONDS)
                if moved:
                    self._moved.set()
                while self._wanted.is_set() and not self._ended.is_set():
                    time.sleep(0.001)
        except BaseException as error:  # noqa: BLE001 - the learner raises it where it waits
            self._error = error
            self._moved.set()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While the context lasts, the thread does nothing."""
        self._wanted.set()
        with self._turn:
            self._wanted.clear()
            yield


def _positions(draws: Sequence[Draw]) -> list[int]:
    return [draw.position for draw in draws]


def _tokens(rollouts: Sequence[Rollout]) -> int:
    """Tokens of prompts and completions."""
    return sum(rollout.group.n_tokens for rollout in rollouts)


def _rollouts(draws: Sequence[Draw]) -> list[Rollout]:
    return [draw.rollout for draw in draws if draw.rollout is not None]
