"""Packed prompt groups: rows of tokens with no padding, in which a prompt stands once before its completions.

Shape letters: T tokens of a row, N read positions (where a trained token is predicted), C completions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tulu.types import Completion, Group


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


@dataclass(frozen=True)
class Batch:
    """One row of packed groups, and what to read from it."""

    tokens_T: Tensor
    """Token ids, int64."""
    positions_T: Tensor
    """Positions for the rotary embedding: they restart after the prompt for every completion."""
    completions: tuple[Segment, ...]
    """Where each completion lies, and its prompt as the prefix, in the order of `owner_N`."""
    read_N: Tensor
    """Positions in the row whose hidden state predicts a trained token."""
    target_N: Tensor
    """The token predicted there."""
    owner_N: Tensor
    """The completion it belongs to."""
    values: dict[str, Tensor] = field(default_factory=dict)
    """(C,) float32 numbers that came with the completions."""
    token_values: dict[str, Tensor] = field(default_factory=dict)
    """(N,) float32 numbers that came with the trained tokens."""

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
        return torch.tensor([segment.end - 1 for segment in self.completions], device=self.tokens_T.device)

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            tokens_T=self.tokens_T.to(device),
            positions_T=self.positions_T.to(device),
            read_N=self.read_N.to(device),
            target_N=self.target_N.to(device),
            owner_N=self.owner_N.to(device),
            values={name: tensor.to(device) for name, tensor in self.values.items()},
            token_values={name: tensor.to(device) for name, tensor in self.token_values.items()},
        )


def sum_by_owner(values_N: Tensor, owner_N: Tensor, n_completions: int) -> Tensor:
    """(C,) sums of (N,) values over the tokens of each completion."""
    return values_N.new_zeros(n_completions).index_add(0, owner_N, values_N)


def mean_by_owner(values_N: Tensor, owner_N: Tensor, n_completions: int) -> Tensor:
    """(C,) means over each completion's trained tokens; 0 where it has none, never NaN."""
    count_C = sum_by_owner(torch.ones_like(values_N), owner_N, n_completions)
    return sum_by_owner(values_N, owner_N, n_completions) / count_C.clamp(min=1)


def pack(groups: Sequence[Group], row_tokens: int, max_completions: int | None = None, split: bool = True) -> list[Batch]:
    """Lay groups into rows of at most `row_tokens` tokens and `max_completions` completions, best fit first.

    A group that is too large is split by completions, its prompt repeated, unless `split` is false: then the
    completions of a group share a row whatever its size, as pairwise losses need. A single completion that is
    longer than a row gets a row of its own. No gradient depends on how groups are laid.
    """
    limit = max_completions or len(groups) * max((len(group.completions) for group in groups), default=1)
    parts = [part for group in groups for part in (_split(group, row_tokens, limit) if split else [group])]
    rows: list[tuple[list[Group], int, int]] = []
    for part in sorted(parts, key=lambda part: part.n_tokens, reverse=True):
        size, count = part.n_tokens, len(part.completions)
        fits = [row for row in range(len(rows)) if rows[row][1] + size <= row_tokens and rows[row][2] + count <= limit]
        if fits:
            fullest = max(fits, key=lambda row: rows[row][1])
            members, tokens, completions = rows[fullest]
            rows[fullest] = ([*members, part], tokens + size, completions + count)
        else:
            rows.append(([part], size, count))
    return [lay(members) for members, _, _ in rows]


def _split(group: Group, row_tokens: int, limit: int) -> list[Group]:
    """The group in parts that each fit a row, in the order of its completions."""
    parts: list[list[Completion]] = []
    room = 0
    for completion in group.completions:
        if not parts or len(completion.tokens) > room or len(parts[-1]) == limit:
            parts.append([])
            room = row_tokens - len(group.prompt)
        parts[-1].append(completion)
        room -= len(completion.tokens)
    return [group] if len(parts) <= 1 else [replace(group, completions=tuple(part)) for part in parts]


def lay(groups: Iterable[Group]) -> Batch:
    """One row that holds the groups one after the other."""
    tokens: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    laid: list[Completion] = []
    read: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    token_values: dict[str, list[float]] = {}
    for group in groups:
        prompt_start, prompt_end = len(tokens), len(tokens) + len(group.prompt)
        tokens.extend(group.prompt)
        positions.extend(range(len(group.prompt)))
        for completion in group.completions:
            start = len(tokens)
            tokens.extend(completion.tokens)
            positions.extend(range(len(group.prompt), len(group.prompt) + len(completion.tokens)))
            for index, trained in enumerate(completion.trained):
                # The first token is predicted by the prompt's last one; without a prompt by nothing at all.
                predictor = start + index - 1 if index else prompt_end - 1
                if not trained or predictor < prompt_start:
                    continue
                read.append(predictor)
                target.append(completion.tokens[index])
                owner.append(len(segments))
                for name, numbers in completion.token_values.items():
                    token_values.setdefault(name, []).append(numbers[index])
            segments.append(Segment(start, len(tokens), prompt_start, prompt_end))
            laid.append(completion)
    for name, collected in token_values.items():
        if len(collected) != len(read):
            raise ValueError(f"some completions of a row carry {name!r} and some do not")
    return Batch(
        tokens_T=torch.tensor(tokens, dtype=torch.long),
        positions_T=torch.tensor(positions, dtype=torch.long),
        completions=tuple(segments),
        read_N=torch.tensor(read, dtype=torch.long),
        target_N=torch.tensor(target, dtype=torch.long),
        owner_N=torch.tensor(owner, dtype=torch.long),
        values={name: torch.tensor([completion.values[name] for completion in laid]) for name in _names(laid)},
        token_values={name: torch.tensor(numbers) for name, numbers in token_values.items()},
    )


def _names(completions: Sequence[Completion]) -> set[str]:
    """The names of the numbers that every completion carries; an error where only some carry one."""
    names = {name for completion in completions for name in completion.values}
    for name in names:
        if any(name not in completion.values for completion in completions):
            raise ValueError(f"some completions of a row carry {name!r} and some do not")
    return names


@dataclass(frozen=True)
class PaddedRows:
    """The same completions as rows of prompt + completion, padded on the right, for models that cannot share a prompt."""

    tokens_CL: Tensor
    mask_CL: Tensor
    """1 on real tokens."""
    read_N: Tensor
    """Flat positions c * L + l whose hidden state predicts a trained token."""
    last_C: Tensor
    """Flat position of each completion's last token."""


def padded_rows(batch: Batch) -> PaddedRows:
    """Unfold a batch into one padded row per completion."""
    device = batch.tokens_T.device
    length = max(segment.prefix_length + segment.length for segment in batch.completions)
    tokens_CL = torch.zeros(batch.n_completions, length, dtype=torch.long, device=device)
    mask_CL = torch.zeros_like(tokens_CL)
    origin, last = [], []
    for row, segment in enumerate(batch.completions):
        prompt_T = batch.tokens_T[segment.prefix_start : segment.prefix_end]
        own_T = batch.tokens_T[segment.start : segment.end]
        size = len(prompt_T) + len(own_T)
        tokens_CL[row, :size] = torch.cat([prompt_T, own_T])
        mask_CL[row, :size] = 1
        # Where a position of the packed row moves to, from the prompt and from the completion.
        origin.append((row * length - segment.prefix_start, row * length + segment.prefix_length - segment.start))
        last.append(row * length + size - 1)
    shift_C2 = torch.tensor(origin, device=device)
    starts_C = torch.tensor([segment.start for segment in batch.completions], device=device)
    in_completion_N = (batch.read_N >= starts_C[batch.owner_N]).long()
    read_N = batch.read_N + shift_C2[batch.owner_N, in_completion_N]
    return PaddedRows(tokens_CL, mask_CL, read_N, torch.tensor(last, device=device))
