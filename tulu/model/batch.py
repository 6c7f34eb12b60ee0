"""Packed prompt groups: rows of tokens without padding, in which a prompt stands once before its completions.

Shape letters: T tokens of a row, N read positions (where a trained token is predicted), C completions of a row,
G groups that are packed together.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate, pairwise
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tulu.losses import sum_by_owner
from tulu.model.sending import send, send_places
from tulu.types import Group


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens [start, end) of a row that attend to [prefix_start, prefix_end) and, causally, to themselves."""

    start: int
    end: int
    prefix_start: int
    prefix_end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def prefix_length(self) -> int:
        return self.prefix_end - self.prefix_start

    @property
    def runs(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Where the document lies that ends with the segment: its prompt, and itself."""
        return (self.prefix_start, self.prefix_end), (self.start, self.end)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One row of packed groups, and the positions that are read from it.

    A stage that needs more of a batch declares a subclass with typed fields, such as `PairBatch` of DPO. A field whose name
    ends in `_C` holds one number per completion and one that ends in `_N` one per trained token; any other size is an error.
    """

    tokens_T: Tensor
    """Token ids, int64."""
    positions_T: Tensor
    """Positions for the rotary embedding: they restart after the prompt for every completion."""
    completions: tuple[Segment, ...]
    """Where each completion lies, with its prompt as the prefix, in the order of `owner_N`."""
    index_C: tuple[tuple[int, int], ...]
    """(group, completion) of every completion: its place among the groups that were packed together."""
    id_C: tuple[str, ...]
    """The row of data that each completion comes from, such as FILE:LINE."""
    read_N: Tensor
    """Positions in the row whose hidden state predicts a trained token."""
    target_N: Tensor
    """The token that is predicted there."""
    owner_N: Tensor
    """The completion that the token belongs to, ascending."""
    place_N: Tensor
    """The place of the token in its completion."""

    def __post_init__(self) -> None:
        sizes = {"C": self.n_completions, "N": self.n_trained}
        for field in fields(self):
            value, size = getattr(self, field.name), sizes.get(field.name.rpartition("_")[2])
            if value is not None and size is not None and len(value) != size:
                raise ValueError(f"{type(self).__name__}.{field.name} has {len(value)} entries where {size} are needed")

    @property
    def n_completions(self) -> int:
        return len(self.completions)

    @property
    def n_tokens(self) -> int:
        return len(self.tokens_T)

    @property
    def n_trained(self) -> int:
        return len(self.read_N)

    @property
    def lengths_C(self) -> Tensor:
        """Trained tokens of each completion, float32."""
        ones = torch.ones_like(self.owner_N, dtype=torch.float32)
        return sum_by_owner(ones, self.owner_N, self.n_completions)

    @property
    def last_C(self) -> Tensor:
        """Position in the row of each completion's last token."""
        places_C = torch.tensor([segment.end - 1 for segment in self.completions], dtype=torch.long)
        return send_places(places_C, self.tokens_T.device)

    def alone(self, group: int) -> Self:
        """The completions of one of the packed groups as a row of their own, with their entries of every field."""
        kept = [place for place, (member, _) in enumerate(self.index_C) if member == group]
        moved: dict[int, int] = {}
        segments = []
        for segment in (self.completions[place] for place in kept):
            for position in (*range(segment.prefix_start, segment.prefix_end), *range(segment.start, segment.end)):
                moved.setdefault(position, len(moved))
            prefix = moved.get(segment.prefix_start, 0)
            start = moved.get(segment.start, len(moved))
            segments.append(Segment(start, start + segment.length, prefix, prefix + segment.prefix_length))
        device = self.tokens_T.device
        taken_T = torch.tensor(list(moved), dtype=torch.long, device=device)
        taken_C = torch.tensor(kept, dtype=torch.long, device=device)
        taken_N = torch.isin(self.owner_N, taken_C).nonzero()[:, 0]
        fields: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, tuple):
                fields[name] = tuple(value[place] for place in kept)
            elif value is not None:
                fields[name] = value[{"T": taken_T, "C": taken_C, "N": taken_N}[name.rpartition("_")[2]]]
        fields["completions"] = tuple(segments)
        fields["read_N"] = torch.tensor([moved[place] for place in fields["read_N"].tolist()], dtype=torch.long, device=device)
        fields["owner_N"] = torch.searchsorted(taken_C, fields["owner_N"])
        return replace(self, **fields)

    def of_groups(self, values_G: Sequence[float]) -> Tensor:
        """(C,) each completion's entry of values that hold one number per packed group."""
        return send(torch.tensor([values_G[group] for group, _ in self.index_C]), self.tokens_T.device)

    def of_completions(self, values_GC: Sequence[Sequence[float]]) -> Tensor:
        """(C,) each completion's entry of values that hold one number per completion of every packed group."""
        values = torch.tensor([values_GC[group][completion] for group, completion in self.index_C])
        return send(values, self.tokens_T.device)

    def of_tokens(self, values_GCT: Sequence[Sequence[Sequence[float]]]) -> Tensor:
        """(N,) the trained tokens' entries of values that hold one number per token of every packed completion."""
        rows = [torch.as_tensor(values_GCT[group][completion]) for group, completion in self.index_C]
        starts_C = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)[:-1]
        places_N = starts_C[self.owner_N.cpu()] + self.place_N.cpu()
        return torch.cat(rows)[places_N].to(self.tokens_T.device)

    def to(self, device: torch.device) -> Self:
        """The same batch with its tensors on `device`."""
        if self.tokens_T.device == device:
            return self
        moved = {name: send(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved["read_N"] = send_places(self.read_N, device)
        fields: dict[str, Any] = moved
        return replace(self, **fields)


_Part = tuple[int, range]
"""Neighbouring completions of a group that share a row: the place of the group among those that are packed, and theirs in it."""


def pack(groups: Sequence[Group], row_tokens: int, max_completions: int | None = None, split: bool = True) -> list[Batch]:
    """Pack groups into rows of at most `row_tokens` tokens and `max_completions` completions, best fit first.

    A group that is too large is split by completions and its prompt repeated, unless `split` is false: then the completions
    of a group share a row whatever its size, as pairwise losses need. A single completion that is longer than a row gets a
    row of its own. Packing changes no gradient.
    """
    limit = max_completions or len(groups) * max((len(group.completions) for group in groups), default=1)
    sized: list[tuple[int, _Part]] = []
    for place, group in enumerate(groups):
        for part in _split(group, row_tokens, limit) if split else [range(len(group.completions))]:
            tokens = len(group.prompt) + sum(len(group.completions[number].tokens) for number in part)
            sized.append((tokens, (place, part)))
    rows: list[tuple[list[_Part], int, int]] = []
    for size, (place, part) in sorted(sized, key=lambda item: item[0], reverse=True):
        fits = [row for row in range(len(rows)) if rows[row][1] + size <= row_tokens and rows[row][2] + len(part) <= limit]
        if fits:
            fullest = max(fits, key=lambda row: rows[row][1])
            members, tokens, completions = rows[fullest]
            rows[fullest] = ([*members, (place, part)], tokens + size, completions + len(part))
        else:
            rows.append(([(place, part)], size, len(part)))
    return [_row(groups, members) for members, _, _ in rows]


def pack_row(groups: Sequence[Group]) -> Batch:
    """One row that holds the groups one after the other, whatever its size."""
    return _row(groups, [(place, range(len(group.completions))) for place, group in enumerate(groups)])


def _split(group: Group, row_tokens: int, limit: int) -> list[range]:
    """The places of the group's completions in parts that each fit a row."""
    starts = [0]
    room = row_tokens - len(group.prompt)
    for place, completion in enumerate(group.completions):
        if place and (len(completion.tokens) > room or place - starts[-1] == limit):
            starts.append(place)
            room = row_tokens - len(group.prompt)
        room -= len(completion.tokens)
    return [range(start, end) for start, end in pairwise([*starts, len(group.completions)])]


def _row(groups: Sequence[Group], parts: Sequence[_Part]) -> Batch:
    # A step has a hundred thousand tokens: no Python loop runs over them.
    tokens = array("q")
    positions: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    segments: list[Segment] = []
    index: list[tuple[int, int]] = []
    ids: list[str] = []
    reads: list[NDArray[np.int64]] = [np.zeros((4, 0), np.int64)]
    for group, numbers in parts:
        prompt = groups[group].prompt
        prompt_start, prompt_end = len(tokens), len(tokens) + len(prompt)
        tokens.extend(prompt)
        positions.append(np.arange(len(prompt)))
        for number in numbers:
            completion = groups[group].completions[number]
            start = len(tokens)
            tokens.extend(completion.tokens)
            positions.append(np.arange(len(prompt), len(prompt) + len(completion.tokens)))
            place_n = np.flatnonzero(np.frombuffer(bytes(completion.trained), np.bool_))
            # The prompt's last token predicts the first one; without a prompt nothing does.
            predictor_n = np.where(place_n > 0, start + place_n - 1, prompt_end - 1)
            is_read_n = predictor_n >= prompt_start
            place_n, predictor_n = place_n[is_read_n], predictor_n[is_read_n]
            target_n = np.array(tokens[start:], np.int64)[place_n]
            reads.append(np.stack([predictor_n, target_n, np.full_like(place_n, len(segments)), place_n]))
            segments.append(Segment(start, len(tokens), prompt_start, prompt_end))
            index.append((group, number))
            ids.append(groups[group].id)
    read_N, target_N, owner_N, place_N = torch.from_numpy(np.concatenate(reads, axis=1))
    return Batch(
        tokens_T=torch.from_numpy(np.array(tokens, np.int64)),
        positions_T=torch.from_numpy(np.concatenate(positions)),
        completions=tuple(segments),
        index_C=tuple(index),
        id_C=tuple(ids),
        read_N=read_N,
        target_N=target_N,
        owner_N=owner_N,
        place_N=place_N,
    )


@dataclass(frozen=True)
class PaddedRows:
    """The same completions as rows of prompt + completion, padded on the right, for models that cannot share a prompt."""

    tokens_CL: Tensor
    mask_CL: Tensor
    """1 on real tokens, 0 on padding."""
    read_N: Tensor
    """Flat positions c * L + l whose hidden state predicts a trained token."""
    last_C: Tensor
    """Flat position of each completion's last token."""


def padded_rows(batch: Batch) -> PaddedRows:
    """Unfold a batch into one padded row per completion."""
    rows = documents(batch)
    tokens_CL = pad_sequence(rows, batch_first=True)
    mask_CL = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    firsts = range(0, tokens_CL.numel(), tokens_CL.shape[1])
    lasts = [first + len(row) - 1 for first, row in zip(firsts, rows, strict=True)]
    last_C = send(torch.tensor(lasts), tokens_CL.device)
    return PaddedRows(tokens_CL, mask_CL, _moved_reads(batch, firsts), last_C)


B = TypeVar("B", bound=Batch)


def without_sharing(batch: B) -> B:
    """The same completions in one row, each behind a prompt of its own."""
    rows = documents(batch)
    device = batch.tokens_T.device
    firsts = [0, *accumulate(len(row) for row in rows)][:-1]
    segments = []
    for first, row, segment in zip(firsts, rows, batch.completions, strict=True):
        start = first + segment.prefix_length
        segments.append(Segment(start, first + len(row), first, start))
    return replace(
        batch,
        tokens_T=torch.cat(rows),
        positions_T=torch.cat([torch.arange(len(row), device=device) for row in rows]),
        completions=tuple(segments),
        read_N=_moved_reads(batch, firsts),
    )


def documents(batch: Batch) -> list[Tensor]:
    """The tokens of every completion behind its prompt."""
    return [torch.cat([batch.tokens_T[start:end] for start, end in segment.runs]) for segment in batch.completions]


def _moved_reads(batch: Batch, firsts: Sequence[int]) -> Tensor:
    """Where the read positions of a batch are when its documents begin at `firsts`."""
    device = batch.tokens_T.device
    # Where a position of the packed row moves to, from the prompt and from the completion.
    shifts = [
        (first - segment.prefix_start, first + segment.prefix_length - segment.start)
        for first, segment in zip(firsts, batch.completions, strict=True)
    ]
    shift_C2 = send(torch.tensor(shifts), device)
    starts_C = send(torch.tensor([segment.start for segment in batch.completions]), device)
    in_completion_N = (batch.read_N >= starts_C[batch.owner_N]).long()
    return batch.read_N + shift_C2[batch.owner_N, in_completion_N]
