"""Which rollouts stand in the file: whole groups, an equal share of every kind that a reader may look for.

A kind is a tenth of the run, a verifier, and what became of the group: solved by all, by some or by none, with truncated or
with masked completions. Rare kinds are thereby as visible as common ones, and the figures of the sample are not those of the
run. The groups of a kind are drawn at random with a fixed seed; memory grows with the kinds, not with the rollouts.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tulu.report.rollout_files import Damaged, Index, Indexes, RolloutFile, Version, version_of

SAMPLE = 1000
"""Most completions of a report."""
_KEPT = 64
"""Most groups of a kind that are kept to draw from."""
_DETAILS = 500
"""Different reasons of a fault that are told apart."""

Kind = tuple[int, str, str, bool, bool]


@dataclass(frozen=True)
class Drawn:
    """A group of the sample, of which the first completions stand for all where it is larger than a sample."""

    file: RolloutFile
    group: int
    count: int


@dataclass
class Tally:
    """Counts of rollouts."""

    rollouts: int = 0
    groups: int = 0
    masked: int = 0
    truncated: int = 0
    by_verifier: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(verifier, status, reason) of the completions that could not be scored."""

    def add(self, other: "Tally") -> None:
        """Add the counts of others to these. Reasons beyond so many different ones become one."""
        self.rollouts += other.rollouts
        self.groups += other.groups
        self.masked += other.masked
        self.truncated += other.truncated
        self.by_verifier += other.by_verifier
        for fault, count in other.faults.items():
            known = fault in self.faults or len(self.faults) < _DETAILS
            self.faults[fault if known else (*fault[:2], "other reasons")] += count


@dataclass
class Census(Tally):
    """What a pass over all rollouts of a stage found."""

    damaged: list[tuple[RolloutFile, str]] = field(default_factory=list)
    kinds: dict[Kind, list[Drawn]] = field(default_factory=dict)
    seen: Counter[Kind] = field(default_factory=Counter)


def take_census(files: Sequence[RolloutFile], indexes: Indexes) -> Census:
    """Count all rollouts of a stage and keep groups of every kind to draw from; a file that cannot be read is named."""
    census, rng = Census(), random.Random(1)
    last = max((file.step for file in files), default=1)
    for file in files:
        try:
            index = indexes.of(file)
            census.add(tally(file, index))
        except Damaged as error:
            census.damaged.append((file, str(error)))
            continue
        _keep(census, file, index, (10 * (file.step - 1)) // max(1, last), rng)
    return census


def count_again(files: Sequence[RolloutFile], indexes: Indexes, known: dict[Version, Tally]) -> Census:
    """The counts alone, where only files that are not `known` yet are read: a run that goes on adds one at a time."""
    census = Census()
    for file in files:
        try:
            version = version_of(file)
            if version not in known:
                known[version] = tally(file, indexes.of(file))
        except Damaged as error:
            census.damaged.append((file, str(error)))
            continue
        census.add(known[version])
    return census


def tally(file: RolloutFile, index: Index) -> Tally:
    """The counts of one file. Raises Damaged."""
    codes, counts = np.unique(index.verifier, return_counts=True)
    found = Tally(
        rollouts=len(index),
        groups=len(index.starts) - 1,
        masked=int(index.masked.sum()),
        truncated=int(index.truncated.sum()),
        by_verifier=Counter({index.verifiers[code]: int(count) for code, count in zip(codes, counts, strict=True)}),
    )
    places = np.flatnonzero(index.masked).tolist()
    for row, place in zip(file.rows(places, ("status", "detail")) if places else (), places, strict=True):
        verifier = index.verifiers[index.verifier[place]]
        found.faults[verifier, str(row.get("status")), str(row.get("detail") or "")[:160]] += 1
    return found


def _keep(census: Census, file: RolloutFile, index: Index, tenth: int, rng: random.Random) -> None:
    """A reservoir of the groups of each kind."""
    starts = index.starts
    if len(starts) < 2:
        return
    begins, counts = starts[:-1], np.diff(starts)
    scored = np.add.reduceat((~np.isnan(index.score)).astype(np.int64), begins)
    right = np.add.reduceat((np.nan_to_num(index.score) > 0).astype(np.int64), begins)
    truncated = np.add.reduceat(index.truncated.astype(np.int64), begins) > 0
    masked = np.add.reduceat(index.masked.astype(np.int64), begins) > 0
    outcomes = np.where(right == 0, "none", np.where(right >= np.maximum(scored, 1), "all", "some"))
    for place, begin in enumerate(begins):
        verifier = index.verifiers[index.verifier[begin]]
        kind = (tenth, verifier, str(outcomes[place]), bool(truncated[place]), bool(masked[place]))
        census.seen[kind] += 1
        kept = census.kinds.setdefault(kind, [])
        drawn = Drawn(file, int(index.group[begin]), min(int(counts[place]), SAMPLE))
        if len(kept) < _KEPT:
            kept.append(drawn)
        elif (other := rng.randrange(census.seen[kind])) < _KEPT:
            kept[other] = drawn


def draw_sample(census: Census, most: int = SAMPLE) -> list[Drawn]:
    """Groups with at most `most` completions together, one of each kind in turn, by step."""
    rng = random.Random(2)
    queues = {kind: rng.sample(kept, len(kept)) for kind, kept in sorted(census.kinds.items())}
    chosen: list[Drawn] = []
    left, turns = most, Counter[Kind]()
    # The kinds of a turn are shuffled, so that where room ends it does not end with the same ones.
    while queues and left > 0:
        for kind in rng.sample(list(queues), len(queues)):
            drawn = queues[kind][turns[kind]]
            turns[kind] += 1
            if drawn.count <= left:
                chosen.append(drawn)
                left -= drawn.count
            if turns[kind] == len(queues[kind]):
                del queues[kind]
    return sorted(chosen, key=lambda drawn: (drawn.file.step, drawn.group))
