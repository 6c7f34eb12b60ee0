"""What moves the stream: prompts are drawn, sent to the engines, collected and graded, and all of it is written down first."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tulu import deadlines
from tulu.config.cores import cores
from tulu.grading.reward import Fault, Grades, check_faults, fault_of
from tulu.rollout.dispatch import Dispatch, End
from tulu.rollout.draws import Draw, Queue
from tulu.rollout.engine import STALE
from tulu.rollout.fleet import Fleet
from tulu.rollout.journal import StreamLog, completion_row, grades_row, read_completion, read_grades
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.sampler import Graded, RolloutGrader
from tulu.rollout.team import Team
from tulu.types import Group, Verdict

log = logging.getLogger("tulu")

GRADING_THREADS = 32
"""Sets of groups that ended together which are graded side by side while the learner trains; as many as there are graders where
these are more, since a set may be one answer. Each is a thread that waits."""


class Pump:
    """Everything that happens to a prompt between drawing and training, in the main process of a learner."""

    def __init__(
        self, fleet: Fleet, dispatch: Dispatch, grader: RolloutGrader, team: Team, queue: Queue, journal: StreamLog, beside: bool
    ) -> None:
        """`beside` says that this happens beside the learner, in a thread; else it happens while the learner waits."""
        self.fleet, self.dispatch, self.grader, self.team = fleet, dispatch, grader, team
        self.queue, self.journal, self.beside = queue, journal, beside
        self.samples = grader.stage.samples
        self._recent: deque[Sequence[Fault | None]] = deque(maxlen=grader.stage.prompts)
        """What failed on the completions of the latest groups, by which a grader that fails is found out."""
        self._grading: list[tuple[list[Draw], Future[list[Graded]]]] = []
        graders = grader.stage.resources.graders or cores()
        self._threads = ThreadPoolExecutor(max(GRADING_THREADS, graders), "grading")

    def turn(self, timeout: float) -> bool:
        """Do once what can be done, waiting at most so long for an engine; returns whether anything moved."""
        moved = self._draw()
        sent = self.dispatch.submit()
        ended = self.collect(timeout)
        while isinstance(self.fleet, LocalFleet) and self.fleet.works:
            # An engine in this process hands over early what ended, so that it is on the disk. All else waits for the whole call:
            # what is drawn and graded, and with what, must not depend on which completion was first.
            ended = self.collect(timeout) or ended
        return self._grade() or moved or bool(sent) or ended

    def collect(self, timeout: float) -> bool:
        """Take what the engines have ended; returns whether any of it is a rollout."""
        ends = self.dispatch.collect(timeout)
        # They count once they are on the disk.
        self.journal.append([_finished_row(end) for end in ends])
        for end in ends:
            _finish(end.draw, end.sample, end)
        return bool(ends)

    def close(self) -> None:
        """End the threads; what is being graded is graded again by the next session."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _draw(self) -> bool:
        count = self.queue.wanted()
        if not count or self.fleet.version == STALE:
            return False
        version = self.fleet.version
        self.journal.append([{"kind": "drawn", "first": self.queue.drawn, "count": count, "version": version}])
        self.queue.draw(count, version)
        return True

    # -- grading -----------------------------------------------------------------------------------------------

    def _grade(self) -> bool:
        """Grade what was sampled: at once where the learner waits, else in threads; returns whether grades came."""
        busy = {draw.position for draws, _ in self._grading for draw in draws}
        waiting = [draw for draw in self.queue.waiting.values() if draw.graded is None and draw.position not in busy]
        ready = [draw for draw in waiting if draw.state(self.samples) == "sampled"]
        for draw in ready:
            draw.grading_since = deadlines.now()
        if ready and not self.beside:
            self._settle(ready, self._graded(ready))
            return True
        if ready:
            self._grading.append((ready, self._threads.submit(self.grader.verify, self._sampled(ready))))
        ended = [entry for entry in self._grading if entry[1].done()]
        self._grading = [entry for entry in self._grading if entry not in ended]
        for draws, future in ended:
            if self.grader.reward_model is None:
                self._settle(draws, future.result())
                continue
            # The reward model stands in the learner's processes, which score when they wait.
            for draw, graded in zip(draws, future.result(), strict=True):
                draw.graded = graded
        return bool(ended)

    def _graded(self, draws: Sequence[Draw]) -> list[Graded]:
        """The grades of what was sampled, from all processes of the learner; only the main one can ask graders elsewhere."""
        sampled = self._sampled(draws)
        if not self.grader.stage.resources.graders:
            return self.team.run("grade", sampled)
        verified = self.grader.verify(sampled)
        if self.grader.reward_model is None:
            return verified
        return self.team.run("prefer", [(*one, graded) for one, graded in zip(sampled, verified, strict=True)])

    def prefer(self) -> None:
        """Let the reward model score what the verifiers have graded in threads."""
        verified = [draw for draw in self.queue.waiting.values() if draw.graded is not None and draw.rollout is None]
        if verified:
            items = [(draw.place, self.group(draw), draw.graded) for draw in verified]
            self._settle(verified, self.team.run("prefer", items))

    def _settle(self, draws: Sequence[Draw], grades: Sequence[Graded]) -> None:
        """Groups have all their grades."""
        grades = [_with_faults(draw, graded) for draw, graded in zip(draws, grades, strict=True)]
        self._recent += [self._faults(draw, graded) for draw, graded in zip(draws, grades, strict=True)]
        if len(self._recent) == self._recent.maxlen:
            check_faults([one for group in self._recent for one in group])
        self.journal.append([_graded_row(draw, graded) for draw, graded in zip(draws, grades, strict=True)])
        for draw, graded in zip(draws, grades, strict=True):
            self._apply(draw, graded)

    def _faults(self, draw: Draw, graded: Graded) -> list[Fault | None]:
        problem, env = self.grader.problems[draw.place], self.grader.stage.env
        pairs = zip(self.group(draw).completions, graded.grades, strict=True)
        return [fault_of(problem, completion, one, env.path if env else "") for completion, one in pairs]

    def _apply(self, draw: Draw, graded: Graded) -> None:
        rollout, limit = self.grader.rollout(draw.place, self.group(draw), graded), self.grader.stage.retire_at
        self.queue.grade(draw, graded, rollout, self.grader.teaches(rollout))
        if limit is not None and rollout.solved is not None and rollout.solved >= limit:
            self.queue.order.retire([draw.place], self.queue.drawn)

    def group(self, draw: Draw) -> Group:
        """The completions of a prompt that was sampled."""
        problem = self.grader.problems[draw.place]
        return Group(problem.prompt, [draw.completions[sample] for sample in range(self.samples)], problem.id)

    def _sampled(self, draws: Sequence[Draw]) -> list[tuple[int, Group]]:
        return [(draw.place, self.group(draw)) for draw in draws]

    # -- what is on the disk -----------------------------------------------------------------------------------

    def rows(self) -> Iterator[dict[str, Any]]:
        """The lines that say what is known of all prompts that are not trained."""
        for draw in self.queue.records.values():
            for sample, completion in sorted(draw.completions.items()):
                yield _finished_row(End(draw, sample, completion, draw.faults.get(sample)))
            if draw.graded is not None and draw.rollout is not None:
                yield _graded_row(draw, draw.graded)

    def read(self, row: Mapping[str, Any]) -> None:
        """Do what a line says was done."""
        kind = row["kind"]
        if kind == "drawn":
            if row["first"] != self.queue.drawn:
                raise ValueError(f"prompts from {row['first']} on are drawn after {self.queue.drawn}")
            self.queue.draw(row["count"], row["version"])
        elif kind == "step":
            self.queue.plan(row["trained"], row["aside"])
        elif kind == "put back":
            self.queue.put_back()
        elif kind == "finished":
            draw, sample = self.queue.records[row["position"]], row["sample"]
            if sample in draw.completions or sample not in range(self.samples):
                raise ValueError(f"sample {sample} of prompt {row['position']} cannot end now")
            _finish(draw, sample, End(draw, sample, read_completion(row), row.get("fault")))
        elif kind == "graded":
            draw = self.queue.records[row["position"]]
            if draw.rollout is not None or len(row["grades"]) != self.samples:
                raise ValueError(f"prompt {row['position']} cannot be graded now")
            grades = tuple(read_grades(one) for one in row["grades"])
            self._apply(draw, Graded(self.grader.texts(self.group(draw)), grades))
        else:
            raise ValueError(f"nothing is known of {kind!r}")


def _finish(draw: Draw, sample: int, end: End) -> None:
    draw.completions[sample] = end.completion
    draw.begun.pop(sample, None)
    if end.fault is not None:
        draw.faults[sample] = end.fault


def _finished_row(end: End) -> dict[str, Any]:
    fault = {} if end.fault is None else {"fault": end.fault}
    return {"kind": "finished", "position": end.draw.position, "sample": end.sample, **completion_row(end.completion), **fault}


def _graded_row(draw: Draw, graded: Graded) -> dict[str, Any]:
    return {"kind": "graded", "position": draw.position, "grades": [grades_row(one) for one in graded.grades]}


def _with_faults(draw: Draw, graded: Graded) -> Graded:
    """The grades of a group, in which a completion that no engine finished has no score, and is no wrong answer."""
    faults = {sample: Grades(Verdict(None, "timeout", fault)) for sample, fault in draw.faults.items()}
    return replace(graded, grades=tuple(faults.get(sample, one) for sample, one in enumerate(graded.grades)))
