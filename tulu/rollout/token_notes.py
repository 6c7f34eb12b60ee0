"""What a learner saw of single tokens in a step: how far it and the sampler disagree, and advantages that differ by token.

The numbers stay on the device until the step is over, so that noting them makes nothing wait. A process notes the completions
that it trains on itself, which is all of them where there is one process, and nothing is gathered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tulu.rollout.batches import SampledBatch
from tulu.rollout.mismatch import Source, Sum, of_tokens
from tulu.types import Completion

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TokenNote:
    """One number for each token of a completion, NaN where a token is not trained."""

    mismatch: Floats
    """Log-prob under the learner before its update, less that under the engine that sampled the token."""
    advantage: Floats | None
    """The token's own advantage; None where all tokens have that which the sampler gave their completion."""


@dataclass(frozen=True)
class _Row:
    """What is kept of a packed row; its tensors are on the device."""

    sampled_C: Sequence[Completion]
    owner_N: Tensor
    place_N: Tensor
    mismatch_N: Tensor
    advantage_N: Tensor | None
    moved: bool


class TokenNotes:
    """The notes of one step."""

    def __init__(self) -> None:
        self.moved = False
        """Whether the policy that is compared has left the weights with which the step began, as in a later mini-batch."""
        self._rows: list[_Row] = []
        self._known: set[int] = set()
        self._read: dict[int, TokenNote] | None = None

    def add(self, batch: SampledBatch, mismatch_N: Tensor, advantage_N: Tensor | None) -> None:
        """Note the tokens of a row, of which only the first update of a step counts; a row of nobody's completions is none."""
        sampled_C = batch.sampled_C
        if not sampled_C or id(sampled_C[0]) in self._known:
            return
        self._known.update(map(id, sampled_C))
        self._read = None
        advantage_N = None if advantage_N is None else advantage_N.detach()
        self._rows.append(_Row(sampled_C, batch.owner_N, batch.place_N, mismatch_N.detach(), advantage_N, self.moved))

    def read(self) -> dict[int, TokenNote]:
        """The notes by `id(completion)`; the device is asked once for each kind of number, by the first call."""
        if self._read is None:
            self._read = self._fetch(self._rows) if self._rows else {}
        return self._read

    def by_source(self, version: int) -> dict[Source, Sum]:
        """The mismatch by engine and age of the weights, in a step that began with weights of this version."""
        notes, found = self.read(), dict[Source, Sum]()
        for row in self._rows:
            for completion in row.sampled_C:
                mismatch = notes[id(completion)].mismatch
                for (engine, sampled), tokens in _spans(completion):
                    own = np.abs(mismatch[tokens][np.asarray(completion.trained[tokens], dtype=bool)], dtype=np.float64)
                    age = 0 if sampled is None else max(0, version - sampled)
                    source = engine, age + row.moved
                    found[source] = found.get(source, Sum()) + of_tokens(source[1], float(own.sum()), len(own))
        return found

    @staticmethod
    def _fetch(rows: Sequence[_Row]) -> dict[int, TokenNote]:
        sizes = [len(row.owner_N) for row in rows]
        owners, all_places, mismatches = (
            _parts([getattr(row, name) for row in rows], sizes) for name in ("owner_N", "place_N", "mismatch_N")
        )
        by_token = [row.advantage_N for row in rows if row.advantage_N is not None]
        advantages = _parts(by_token, sizes) if len(by_token) == len(rows) else [None] * len(rows)
        notes: dict[int, TokenNote] = {}
        for row, owner_N, place_N, mismatch_N, advantage_N in zip(rows, owners, all_places, mismatches, advantages, strict=True):
            # Owners ascend, so that the tokens of a completion lie together.
            ends = np.searchsorted(owner_N, np.arange(len(row.sampled_C) + 1))
            for number, completion in enumerate(row.sampled_C):
                own = slice(ends[number], ends[number + 1])
                length, places = len(completion.tokens), place_N[own]
                advantage = None if advantage_N is None else _spread(length, places, advantage_N[own])
                notes[id(completion)] = TokenNote(_spread(length, places, mismatch_N[own]), advantage)
        return notes


def columns(completion: Completion, notes: Mapping[int, TokenNote]) -> dict[str, Any]:
    """The columns of a completion's tokens that a file of rollouts holds, empty where nothing was noted of any completion."""
    if not notes:
        return {}
    note = notes.get(id(completion))
    found: dict[str, Any] = {"token_mismatch": None if note is None else note.mismatch}
    if any(one.advantage is not None for one in notes.values()):
        found["token_advantage"] = None if note is None else note.advantage
    return found


def _spans(completion: Completion) -> list[tuple[tuple[str, int | None], slice]]:
    """The parts of a completion that one engine sampled with weights of one version, as far as either is known."""
    starts = sorted({0, *(first for first, _ in completion.engines), *(first for first, _ in completion.versions)})
    bounds = pairwise([*starts, len(completion.tokens)])

    def at(spans: Sequence[tuple[int, Any]], place: int, unknown: Any) -> Any:
        return next((value for first, value in reversed(spans) if first <= place), unknown)

    engines, versions = completion.engines, completion.versions
    return [((at(engines, first, ""), at(versions, first, None)), slice(first, end)) for first, end in bounds]


def _parts(tensors: Sequence[Tensor], sizes: Sequence[int]) -> list[Any]:
    """The tensors as arrays on the CPU, fetched as one."""
    whole = torch.cat([tensor if tensor.dtype == torch.long else tensor.float() for tensor in tensors]).cpu().numpy()
    return np.split(whole, np.cumsum(sizes)[:-1])


def _spread(length: int, places_N: Any, values_N: Any) -> Floats:
    spread = np.full(length, np.nan, dtype=np.float32)
    spread[places_N] = values_N
    return spread
