"""Single requests to a fleet of engines, and what becomes of those that do not come back."""

import logging
from collections import Counter
from dataclasses import dataclass

from tulu import deadlines
from tulu.config.schema import Rlvr
from tulu.rollout.asides import Asides
from tulu.rollout.draws import Draw, Queue
from tulu.rollout.episode import acting_told
from tulu.rollout.episodes import acting_in
from tulu.rollout.fleet import Fleet, Request, Returned
from tulu.rollout.sampler import RolloutGrader
from tulu.types import Completion, SamplingParams
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

log = logging.getLogger("tulu")

MOST_LATE = 3
"""How often a rollout may pass its deadline without a token more than before, until no engine is asked for it again."""
SUSPECT, MOST_LOST = 3, 10
"""How often an engine may fail that works on a rollout until it is sent only while no other such one is out, and until it is
given up. A prompt that kills engines would else kill them for ever, and take what they work on beside it with it."""


@dataclass(frozen=True)
class End:
    """A completion that ended, or that is given up because no engine finishes it."""

    draw: Draw
    sample: int
    completion: Completion
    fault: str | None = None


@dataclass
class Tries:
    """How a completion that was not finished has fared."""

    late: int = 0
    lost: int = 0
    tokens: int = 0
    """How many were known of it after the last try."""


class Dispatch:
    """The requests of the prompts that wait, on their way to a fleet and back."""

    def __init__(self, fleet: Fleet, grader: RolloutGrader, stage: Rlvr, queue: Queue) -> None:
        self.fleet, self.grader, self.stage, self.queue = fleet, grader, stage, queue
        self.asides = Asides(fleet, stage.rollout_seconds)
        """What the engines are asked besides the rollouts."""
        self.again = 0
        """How often a request was sent again because it was late or its engine failed."""
        self._tries: dict[tuple[int, int], Tries] = {}
        self._cut: set[tuple[int, int]] = set()
        self._look_at = 0.0
        """When it is looked for late ones next."""

    def submit(self) -> int:
        """Send as many requests as the engines have room for, in the order of drawing; returns how many."""
        requests: list[Request] = []
        room, version, now = self.fleet.room(), self.fleet.version, deadlines.now()
        suspects = {place for place, tries in self._tries.items() if tries.lost >= SUSPECT}
        waiting = self.queue.waiting
        alone = any(sample in waiting[position].sent for position, sample in suspects if position in waiting)
        for draw in waiting.values():
            # After a session that died, prompts may have been drawn with weights that are not there again yet.
            if draw.version > version or len(requests) >= room:
                break
            if len(draw.completions) + len(draw.sent) == self.stage.samples:
                continue
            absent = [one for one in range(self.stage.samples) if one not in draw.completions and one not in draw.sent]
            for sample in absent[: room - len(requests)]:
                if (suspect := (draw.position, sample) in suspects) and alone:
                    continue
                alone = alone or suspect
                requests.append(self._request(draw, sample))
                draw.sent[sample] = now
        if requests:
            self.fleet.submit(requests)
        return len(requests)

    def _request(self, draw: Draw, sample: int) -> Request:
        stage, problem = self.stage, self.grader.problems[draw.place]
        params = SamplingParams(stage.max_tokens, stage.temperature, stop=stage.stop, seed=stage.seed * 1_000_003 + draw.first)
        key, begun = f"{draw.position}:{sample}", draw.begun.get(sample)
        return Request(key, problem.id, problem.prompt, params, sample, stage.samples, begun)

    def collect(self, timeout: float) -> list[End]:
        """What ended; a request that comes back unfinished is sent again by the next `submit`, with the tokens that are known."""
        self._cut_late()
        ends, back = [], Counter[str]()
        for end in self.fleet.collect(timeout):
            if self.asides.takes(end):
                continue
            position, sample = map(int, end.key.split(":"))
            draw = self.queue.waiting.get(position)
            if draw is None or sample not in draw.sent:
                # It was sent again, and another engine was faster.
                continue
            del draw.sent[sample]
            late = (position, sample) in self._cut
            self._cut.discard((position, sample))
            if not isinstance(end, Returned):
                ends.append(End(draw, sample, end.completion))
                self._tries.pop((position, sample), None)
            elif fault := self._take_back(draw, sample, end, late):
                known = draw.begun.get(sample) or Completion([], [], [])
                given_up = Completion(known.tokens, known.trained, known.sampler_logps, "data", known.versions)
                ends.append(End(draw, sample, given_up, fault))
            else:
                back[self._why(end, late)] += 1
        for why, count in back.items():
            self.again += count
            log.warning("%d rollouts come back unfinished and are sampled further: %s", count, why)
        return ends

    def _take_back(self, draw: Draw, sample: int, end: Returned, late: bool) -> str:
        """Note that a request came back unfinished; returns why it is not sent again, empty if it is."""
        tries = self._tries.setdefault((draw.position, sample), Tries())
        if end.begun is not None:
            draw.begun[sample] = end.begun
        known = draw.begun.get(sample)
        tokens = 0 if known is None else len(known.tokens)
        if tokens > tries.tokens:
            # It goes on, if slowly.
            tries.late, tries.tokens = 0, tokens
        tries.late += late
        tries.lost += not late
        if tries.late < MOST_LATE and tries.lost < MOST_LOST:
            return ""
        name = f"{self.grader.problems[draw.place].id}, sample {sample + 1} of {self.stage.samples}"
        times = f"{tries.late} times in {self.stage.rollout_seconds:g} s" if late else f"on {tries.lost} engines: {end.reason}"
        log.warning("%s: no engine finishes it (%s); it is left out of its group and counted as masked", name, times)
        return f"no engine finished it ({times})"

    def _why(self, end: Returned, late: bool) -> str:
        engine = f" on {end.engine}" if end.engine else ""
        return f"not finished in {self.stage.rollout_seconds:g} s{engine}" if late else f"{end.reason}{engine}"

    def _cut_late(self) -> None:
        """Take back what the engines have had for longer than `rollout_seconds`."""
        now = deadlines.now()
        if now < self._look_at:
            return
        self._look_at = now + min(1.0, self.stage.rollout_seconds / 8)
        before = now - self.stage.rollout_seconds
        late = [
            (draw.position, sample)
            for draw in self.queue.waiting.values()
            for sample, since in draw.sent.items()
            if since < before and (draw.position, sample) not in self._cut
        ]
        if late:
            self._cut.update(late)
            self.fleet.cut([f"{position}:{sample}" for position, sample in late])

    def postpone(self, seconds: float) -> None:
        """Move all deadlines by so much, because the engines stood still for so long."""
        for draw in self.queue.waiting.values():
            draw.sent = {sample: since + seconds for sample, since in draw.sent.items()}

    def told(self, draw: Draw) -> str:
        """What is known of a prompt that is waited for, in words."""
        problem, now, sent = self.grader.problems[draw.place], deadlines.now(), dict(draw.sent)
        parts = [f"{problem.id} with {len(draw.completions)} of {self.stage.samples} completions"]
        acting = acting_in(self.fleet, [f"{draw.position}:{sample}" for sample in sent])
        with_engines = [since for sample, since in sent.items() if f"{draw.position}:{sample}" not in acting]
        if with_engines:
            parts.append(f"{len(with_engines)} with the engines for {now - min(with_engines):.0f} s")
        parts += acting_told(acting, now)
        if draw.grading_since is not None:
            names = [name for name in problem.verifiers if draw.graded is None and name.lower() != REWARD_MODEL]
            names += ["the reward model"] if self.grader.reward_model is not None else []
            parts.append(f"being graded by {' and '.join(names) or 'its environment'} for {now - draw.grading_since:.0f} s")
        return ", ".join(parts)
