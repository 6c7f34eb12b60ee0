"""Whether learner and engines hold the same weights, by how far they disagree about the tokens that the engines sampled.

The log-prob of a token under the learner, before it is trained on, less that under the engine that sampled it is its mismatch.
With the same weights it is rounding: some hundredths of a nat on average. Weights of earlier steps move it, by less for each step
than weights that are others altogether. So every token is held against a limit of its own: 0.5 nats where the present weights
sampled it, and as much again for every step of its age. The permission to run ahead (`max_staleness`) excuses nothing by itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tulu.errors import EngineError
from tulu.model.parallel import Parallel

LIMIT = 0.5
"""Mean |mismatch| in nats beyond which the weights cannot be the same; tokens of weights that are N steps old may have
N + 1 times as much."""
CHANCE = 8.0
"""Nats by which a part of the tokens, those of one engine or of one age, may exceed its limit in sum. A few tokens on which two
computations round apart are no other weights; an engine that is 3 nats off is found once it has four tokens in a step."""
NAMED = 8
"""Engines that a message names; of more it says how many there are."""

Source = tuple[str, int]
"""An engine, and the age of the weights that it sampled with: how many steps they are behind the learner's."""


@dataclass(frozen=True)
class Sum:
    """The |mismatch| of some tokens, added up, and what it may be."""

    nats: float = 0.0
    tokens: int = 0
    allowed: float = 0.0

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(self.nats + other.nats, self.tokens + other.tokens, self.allowed + other.allowed)

    @property
    def mean(self) -> float:
        """The mean over its tokens."""
        return self.nats / self.tokens

    @property
    def limit(self) -> float:
        """The mean that it may have."""
        return self.allowed / self.tokens

    def exceeds(self, chance: float) -> bool:
        """Whether it is beyond its limit by more than chance explains. What is not a number is not small."""
        return self.tokens > 0 and not self.nats <= self.allowed + chance


def of_tokens(age: int, nats: float, tokens: int) -> Sum:
    """So many tokens that were sampled with weights of this age, and their |mismatch| added up."""
    return Sum(nats, tokens, LIMIT * (1 + age) * tokens)


def check_weights(parallel: Parallel, own: Mapping[Source, Sum], step: int, by_rank: bool) -> dict[str, float]:
    """Judge the tokens of all processes, each of which gives what it trained on itself; returns the mean of each engine.

    Raises EngineError, in every process alike, where learner and engines cannot hold the same weights. `by_rank` says that every
    process has an engine of its own, which has no name. Where there is one engine, its mean is that of the step.
    """
    unnamed = f"engine-of-rank-{parallel.rank}" if by_rank and parallel.world > 1 else ""
    sums: dict[Source, Sum] = {}
    for part in parallel.exchange([(engine or unnamed, age, one) for (engine, age), one in own.items()]):
        for engine, age, one in part:
            sums[engine, age] = sums.get((engine, age), Sum()) + one
    engines: dict[str, Sum] = {}
    for (engine, _), one in sorted(sums.items()):
        engines[engine] = engines.get(engine, Sum()) + one
    if found := beyond(sums):
        raise EngineError(message(step, found, len(engines)))
    return {f"engine/{engine}/mismatch": one.mean for engine, one in engines.items() if len(engines) > 1 and one.tokens}


@dataclass(frozen=True)
class Beyond:
    """Tokens that are further off than the same weights can be."""

    engine: str
    """Empty for all engines together."""
    age: int | None
    """None for tokens of all ages together."""
    sum: Sum

    def told(self) -> str:
        """The figures in words."""
        ages = {None: "", 0: " of the learner's present weights", 1: " of weights one step older"}
        age = ages.get(self.age, f" of weights {self.age} steps older")
        return f"{self.sum.mean:.2f} nats a token on {self.sum.tokens:,} tokens{age}, where {self.sum.limit:.2f} are allowed"


def beyond(sums: Mapping[Source, Sum]) -> list[Beyond]:
    """What is beyond its limit, the most telling first: all engines together, or else each engine that is; [] if nothing is.

    Tokens of each age are judged by themselves, and those of all ages together. All tokens of all engines have no tolerance.
    """
    engines = sorted({engine for engine, _ in sums})
    each = [found for engine in engines if (found := _worst(engine, _by_age(sums, [engine]), CHANCE)) is not None]
    if each and len(each) < len(engines):
        return each
    together = _worst("", _by_age(sums, engines), 0.0)
    return [together] if together is not None else each


def _by_age(sums: Mapping[Source, Sum], engines: Iterable[str]) -> dict[int, Sum]:
    wanted, found = set(engines), dict[int, Sum]()
    for (engine, age), part in sorted(sums.items()):
        if engine in wanted:
            found[age] = found.get(age, Sum()) + part
    return found


def _worst(engine: str, ages: Mapping[int, Sum], tolerance: float) -> Beyond | None:
    """The youngest tokens that are beyond their limit, else all of them if they are."""
    whole = sum(ages.values(), Sum()), tolerance
    parts = [(age, ages[age], CHANCE) for age in sorted(ages)]
    parts_and_whole = [*parts, (parts[0][0] if len(parts) == 1 else None, *whole)]
    return next((Beyond(engine, age, part) for age, part, chance in parts_and_whole if part.exceeds(chance)), None)


def message(step: int, found: list[Beyond], engines: int) -> str:
    """Why a run stops at a step, and what to do; `found` is what is beyond its limit, of so many engines."""
    first = found[0]
    if not first.engine:
        head = f"{'the engine' if engines < 2 else f'its {engines} engines'} disagree by {first.told()}"
    elif len(found) == 1:
        head = f"{first.engine}, one of {engines} engines, disagree by {first.told()}"
    else:
        named = "; ".join(f"{one.engine} by {one.told()}" for one in found[:NAMED])
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        head = f"{len(found)} of {engines} engines disagree: {named}{more}"
    return (
        f"step {step}: learner and {head}: they do not hold the same weights\n"
        "The checkpoint before is intact. Run the same command again: it brings every engine the learner's weights anew, and "
        "what was sampled since is sampled again. If it recurs, both compute differently: compare precision, dtype and template, "
        "and the versions of vllm and transformers."
    )
