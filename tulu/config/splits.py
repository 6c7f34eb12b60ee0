"""How to divide GPUs between the learner of RLVR and its engines: divisions that hold the model, each simulated on the same
answers."""

import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tulu.config.batch_checks import micro_batch
from tulu.config.cards import Card
from tulu.config.decoding import APART_SHARE, ENGINE_SHARE, Decoder, decoder, engine_of, least_gpus
from tulu.config.facts import Facts
from tulu.config.fitting import rows_of
from tulu.config.operations import learner_operations, rollout_load
from tulu.config.parts import Resources
from tulu.config.sampling_time import sampling
from tulu.config.schema import Rlvr
from tulu.config.simulation import Loop, Outcome, Sampled, simulate
from tulu.config.sizes import Size
from tulu.config.verdicts import grading_of

NODE = 8
"""GPUs of a node, beyond which an engine is spread only if it must be."""
WIDER = (1, 2, 4)
"""Engines are tried over as few GPUs as hold the model, and over so many times as many."""
MOST_ROOM = 4096
"""Answers that an engine writes at once at most (tulu/rollout/fleet_admission.py)."""
TRIED = 12
"""Divisions that are simulated of one staleness."""
COUNTS = 48
"""Numbers of engines that are looked at; of many GPUs not every number is."""
ANSWERS = 6000
"""Answers that are sampled in a simulation, if its steps are not too few for that."""
LEAST_STEPS, MOST_STEPS = 3, 24
SLOWED = 1.05
"""How much longer a step may take than with any number of graders until it is said that they are the bound."""


@dataclass(frozen=True)
class Split:
    """A division of GPUs, and what it comes to."""

    learners: int
    engines: int
    """0 is none of their own: every GPU samples, and then learns."""
    tensor_parallel: int
    max_staleness: int
    fits: bool
    """Whether learner and engines have room for the model."""
    outcome: Outcome
    loop: Loop = field(compare=False, repr=False)
    """What was simulated."""

    @property
    def gpus(self) -> int:
        """GPUs that it uses."""
        return self.learners + self.engines * self.tensor_parallel

    @property
    def settings(self) -> tuple[int, int, int, int]:
        """What it is, in numbers."""
        return self.learners, self.engines, self.tensor_parallel, self.max_staleness


@dataclass(frozen=True)
class Splits:
    """Divisions of the same GPUs."""

    together: Split
    """No engine has GPUs of its own."""
    apart: Sequence[Split]
    """With the staleness of the recipe, the fastest first."""
    ahead: Split | None
    """The fastest that runs ahead of the learner, where the recipe does not."""
    stated: Split
    """That of the recipe."""

    @property
    def best(self) -> Split | None:
        """The fastest with the recipe's staleness; None where the model fits none."""
        return min(
            (split for split in (self.together, self.stated, *self.apart) if split.fits),
            key=lambda split: split.outcome.step_seconds,
            default=None,
        )


class MadeUpAnswers:
    """Groups of answers with the lengths of a distribution, the same for the same seed."""

    def __init__(self, facts: Facts, section: Rlvr) -> None:
        self._lengths, self._samples, self._random = facts.lengths, section.samples, random.Random(section.seed)
        sifted = section.refill or section.drop_equal
        self._teaching = facts.teaching if sifted else 1.0
        self._made: list[Sampled] = []

    def __call__(self, position: int) -> Sampled:
        """The group at a place in the order of drawing."""
        while len(self._made) <= position:
            shares = [max(1e-9, self._random.random()) for _ in range(self._samples)]
            lengths = [float(round(self._lengths.at(share))) for share in shares]
            self._made.append((lengths, self._random.random() < self._teaching))
        return self._made[position]


class Divider:
    """Divides the GPUs of one stage."""

    def __init__(self, facts: Facts, section: Rlvr, size: Size, card: Card) -> None:
        self.facts, self.section, self.size, self.card = facts, section, size, card
        self.answers = MadeUpAnswers(facts, section)
        self.grading = facts.grading or grading_of(section, None)
        own = 0 if section.resources.colocated else section.resources.engines * section.resources.tensor_parallel
        self.gpus = facts.processes + own
        self.length = facts.prompt + facts.lengths.tokens
        self._fits: dict[int, bool] = {}
        self._found: dict[tuple[int, int, int, int], Split] = {}

    @cached_property
    def token_seconds(self) -> float:
        """What one GPU takes to learn from a token."""
        facts, stage = self.facts, self.section
        step = learner_operations(stage, self.size, facts.value, facts.prompt, facts.lengths, facts.teacher)
        tokens = stage.prompts * rollout_load(stage, self.size, facts.prompt, facts.lengths).tokens
        peak = self.card.peak_fp32 if stage.precision == "fp32" else self.card.peak
        return sum(step.values()) / tokens / (peak * facts.mfu)

    def splits(self) -> Splits:
        """The recipe's own, and others of as many GPUs."""
        own = self.section.max_staleness
        ahead = next(iter(self.search(1)), None) if own == 0 else None
        return Splits(self.together, self.search(own), ahead, self.stated())

    def stated(self) -> Split:
        """The recipe's own."""
        resources = self.section.resources
        if not resources.engines or resources.colocated:
            return self.together
        return self.apart(self.facts.processes, resources.engines, resources.tensor_parallel, self.section.max_staleness)

    @cached_property
    def together(self) -> Split:
        """Every GPU samples, and then learns; each step samples as much as it trains on, whatever the staleness."""
        facts, section, gpus = self.facts, self.section, max(filter(self._divides, range(1, self.gpus + 1)))
        width = sampling(section, self.size, self.card, gpus, facts.mfu, facts.prompt, facts.lengths).gpus
        loop = replace(self._loop(self._decoder(width, ENGINE_SHARE), max(1, gpus // width), gpus, 0), in_turn=True)
        found = self._simulate(loop)
        alone = section.model_copy(update={"resources": Resources()})
        # The engine of a training process has one GPU.
        fits = least_gpus(self.size, self.card, ENGINE_SHARE) == 1 and rows_of(facts, alone, gpus).fits
        return Split(gpus, 0, 1, section.max_staleness, fits, replace(found, staleness=float(section.max_staleness)), loop)

    def apart(self, learners: int, engines: int, width: int, max_staleness: int) -> Split:
        """Engines with GPUs of their own."""
        key = (learners, engines, width, max_staleness)
        if key not in self._found:
            loop = self._loop(self._decoder(width, APART_SHARE), engines, learners, max_staleness)
            fits = self._holds(learners) and width >= least_gpus(self.size, self.card, APART_SHARE)
            self._found[key] = Split(*key, fits, self._simulate(loop), loop)
        return self._found[key]

    def without_a_queue(self, split: Split) -> Outcome:
        """The same division with a grader for every answer."""
        return self._simulate(replace(split.loop, graders=sys.maxsize))

    def enough_graders(self, split: Split) -> int:
        """So many that a step is SLOWED at most by answers that wait for one, to a fifth more than are needed for that."""
        least = self.without_a_queue(split).step_seconds
        graders = max(1, math.ceil(self.section.batch * self.grading.seconds / least))
        while self._simulate(replace(split.loop, graders=graders)).step_seconds > SLOWED * least:
            graders = math.ceil(1.2 * graders)
        return graders

    def search(self, max_staleness: int) -> list[Split]:
        """The fastest divisions of those that hold the model: from the best estimate on to whatever neighbour is faster."""
        if engine_of(self.section) != "vllm":
            return []
        lines = [line for width in self._widths() if (line := self._line(width))]
        offers = [(self._estimate(*offer, max_staleness), line, place) for line in lines for place, offer in enumerate(line)]
        if not offers:
            return []
        found: dict[tuple[int, int, int, int], Split] = {}

        def try_out(line: Sequence[tuple[int, int, int]], place: int) -> float:
            split = self.apart(*line[place], max_staleness)
            found[split.settings] = split
            return split.outcome.step_seconds

        # Each width by its own best estimate.
        starts = [min((offer for offer in offers if offer[1] is line), key=lambda offer: offer[0]) for line in lines]
        for _, line, place in sorted(starts, key=lambda offer: offer[0]):
            best = try_out(line, place)
            for direction in (1, -1):
                here = place
                while len(found) < TRIED and 0 <= here + direction < len(line):
                    here += direction
                    if (seconds := try_out(line, here)) >= best:
                        break
                    best = seconds
        return sorted(found.values(), key=lambda split: split.outcome.step_seconds)

    def _widths(self) -> list[int]:
        """GPUs that an engine may have."""
        least = least_gpus(self.size, self.card, APART_SHARE)
        return [width for width in (times * least for times in WIDER) if width < self.gpus and (width == least or width <= NODE)]

    def _line(self, width: int) -> list[tuple[int, int, int]]:
        """(learners, engines, GPUs of each) with more and more engines, as many as there are GPUs for."""
        offers: dict[int, int] = {}
        for learners in range(1, self.gpus - width + 1):
            if self._divides(learners) and self._holds(learners):
                # Of as many engines those with the most learners are left.
                offers[(self.gpus - learners) // width] = learners
        line = [(learners, engines, width) for engines, learners in sorted(offers.items())]
        return line[:: -(-len(line) // COUNTS)] if line else []

    def _divides(self, learners: int) -> bool:
        """Whether the recipe's batch can be divided between so many (config/batch_checks.py)."""
        step = self.section.batch // self.section.minibatches
        micro = micro_batch(step, self.section.micro_batch, learners)
        return step % learners == 0 and step // learners % micro == 0

    def _holds(self, learners: int) -> bool:
        """Whether so many learners have room for the model."""
        if learners not in self._fits:
            section = self.section.model_copy(update={"resources": Resources(engines=1)})
            self._fits[learners] = rows_of(self.facts, section, learners).fits
        return self._fits[learners]

    def _estimate(self, learners: int, engines: int, width: int, max_staleness: int) -> float:
        """Seconds of a step without a simulation, by which the search begins."""
        facts, stage, engine = self.facts, self.section, self._decoder(width, APART_SHARE)
        groups = -(-stage.prompts // learners)
        train = groups * (facts.prompt + stage.samples * facts.lengths.tokens) * self.token_seconds + facts.sync_seconds
        most = stage.batch * (max_staleness + 0.5) / engines
        writing = max(1.0, min(float(self._room(engine)), most))
        step = engine.step_seconds(writing, writing * self.length)
        sampled = stage.batch / facts.teaching * facts.lengths.tokens / engines / writing * step
        longest = facts.lengths.longest * step / (max_staleness + 1)
        graded = self.grading.least_seconds(stage.batch) / facts.teaching
        return train + graded + max(sampled, longest) if max_staleness == 0 else max(train, sampled, longest, graded)

    def _decoder(self, gpus: int, share: float) -> Decoder:
        return decoder(self.size, self.card, gpus, self.facts.mfu, self.length, share, engine_of(self.section))

    def _room(self, engine: Decoder) -> int:
        """Answers that an engine writes at once, each half written on average."""
        room = engine.at_once(self.facts.prompt + self.facts.lengths.tokens / 2)
        return MOST_ROOM if room is None else max(1, min(MOST_ROOM, int(room)))

    def _loop(self, engine: Decoder, engines: int, learners: int, max_staleness: int) -> Loop:
        return Loop(
            prompts=self.section.prompts,
            max_staleness=max_staleness,
            sampled=self.answers,
            engines=engines,
            room=self._room(engine),
            speed=engine,
            train_seconds=training(learners, self.token_seconds),
            prompt=self.facts.prompt,
            sync_seconds=self.facts.sync_seconds,
            grading_seconds=self.facts.grading_seconds,
            graders=self.grading.graders,
            verdict_seconds=self.grading.seconds,
            refill=self.section.refill,
        )

    def _simulate(self, loop: Loop) -> Outcome:
        sampled = self.section.batch / (self.facts.teaching if self.section.refill else 1.0)
        steps = min(MOST_STEPS, max(LEAST_STEPS, int(ANSWERS / sampled)))
        return simulate(loop, loop.max_staleness + 2, steps)


def training(learners: int, token_seconds: float) -> Callable[[Sequence[float]], float]:
    """What so many learners take for groups of so many tokens: each has whole groups, and all wait for the one with the most."""

    def seconds(groups: Sequence[float]) -> float:
        return token_seconds * max(sum(groups[first::learners]) for first in range(min(learners, len(groups))))

    return seconds


def divider_of(facts: Facts) -> Divider | None:
    """What divides a stage's GPUs; None unless it is RLVR with a known model on a named GPU."""
    if not isinstance(facts.section, Rlvr) or facts.size is None or facts.card is None:
        return None
    return Divider(facts, facts.section, facts.size, facts.card)
