"""Which rows of a mix are never trained on, so that a loss on them says what the model makes of rows that it has not seen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import xxhash
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from tulu.config.training import FixedData
from tulu.data.lazy import LazySequence
from tulu.data.mixing import order
from tulu.data.token_cache import Groups
from tulu.errors import DataError
from tulu.train.agreement import from_main
from tulu.train.open import StageRun
from tulu.types import Group

log = logging.getLogger("tulu")

Places = NDArray[numpy.int64]


@dataclass(frozen=True)
class Parted:
    """The rows of a stage, parted into those that are trained on and those that are not."""

    training: Sequence[Group]
    places: Places | None
    """The places in the mix of the rows that are trained on; None where all of them are."""
    held_out: Sequence[Group]
    facts: dict[str, str]
    """What a run rests on besides its mix, by content."""

    def training_of(self, rows: Sequence[Group]) -> Sequence[Group]:
        """Of rows that stand for the whole mix, one for each, those that are trained on."""
        return rows if self.places is None else subset(rows, self.places)


def part(run: StageRun, groups: Groups, tokenizer: PreTrainedTokenizerBase) -> Parted:
    """Keep from training what the recipe says: a share of the mix, or rows of their own.

    A copy of a row that is held out is not trained on either; a row of `eval_data` that is also trained on is not held out.
    Raises DataError where no row is left.
    """
    stage: FixedData = run.section
    if stage.eval_data is not None:
        own = run.load_groups(tokenizer, stage.eval_data)
        trained = from_main(run.parallel, "the rows of eval_data to be looked for in the mix", lambda: copies_in(own, groups))
        if trained:
            log.warning("eval_data: %d of %d rows are trained on too, and are left out of it", len(trained), len(own))
        left = numpy.setdiff1d(numpy.arange(len(own)), trained)
        if not len(left):
            raise DataError(f"{run.job.stage}.eval_data: all of its rows are trained on; name others, or set held_out to a share")
        return Parted(groups, None, subset(own, left), {"eval_data": own.digest})
    held_out, places = split(len(groups), stage)
    if not held_out:
        return Parted(groups, None, (), {})
    kept = subset(groups, numpy.asarray(held_out))
    copies = from_main(run.parallel, "copies of held-out rows to be looked for", lambda: copies_in(groups, kept, places))
    if copies:
        log.info("%d rows are copies of rows that are held out, and are not trained on either", len(copies))
    places = numpy.setdiff1d(places, copies, assume_unique=True)
    if not len(places):
        raise DataError(f"{run.job.stage}.held_out: {stage.held_out:g} of {len(groups)} rows leaves none to train on; lower it")
    return Parted(subset(groups, places), places, kept, {})


def split(rows: int, stage: FixedData) -> tuple[list[int], Places]:
    """(held-out, training) places of the mix, both ascending: the held-out ones are a seeded share."""
    held_out = numpy.sort(order(rows, stage.seed, 0)[: round(rows * stage.held_out)])
    return held_out.tolist(), numpy.setdiff1d(numpy.arange(rows), held_out, assume_unique=True)


class Subset(LazySequence[Group]):
    """Some groups of a mix, with their lengths."""

    def __init__(self, rows: Sequence[Group], places: Places, lengths: Places | None) -> None:
        super().__init__(len(places), lambda place: rows[int(places[place])])
        self.lengths = lengths
        """(G,) tokens of each group, where they are known without reading it."""


def subset(rows: Sequence[Group], places: Places) -> Subset:
    """The groups at these places."""
    lengths = lengths_of(rows)
    return Subset(rows, places, None if lengths is None else lengths[places])


def lengths_of(rows: Sequence[Group]) -> Places | None:
    """(G,) tokens of each group, where they are known without reading it."""
    return rows.lengths if isinstance(rows, Groups | Subset) else None


def copies_in(rows: Sequence[Group], others: Sequence[Group], places: Places | None = None) -> list[int]:
    """The places of the rows, among `places` if given, whose tokens are those of one of the others.

    Only rows that are as long as one of the others are read.
    """
    looked = numpy.arange(len(rows)) if places is None else places
    own, theirs = lengths_of(rows), lengths_of(others)
    if own is not None and theirs is not None:
        looked = looked[numpy.isin(own[looked], theirs)]
        mine = set(own[looked].tolist())
        others = [others[int(place)] for place in numpy.flatnonzero(numpy.isin(theirs, list(mine)))]
    known = {content_of(group) for group in others}
    return [int(place) for place in looked if content_of(rows[int(place)]) in known]


def content_of(group: Group) -> bytes:
    """A hash of the tokens of a group, prompt and completions apart."""
    digest = xxhash.xxh3_128()
    for tokens in (group.prompt, *(completion.tokens for completion in group.completions)):
        digest.update(numpy.asarray(tokens, dtype=numpy.int64).tobytes() + b"|")
    return digest.digest()
