"""The weighted mean of checkpoints on disk, a few rows of one weight at a time, with sums in float32."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tulu.errors import RecipeError
from tulu.model.stored import Stored
from tulu.model.streamed import Planned, write_streamed
from tulu.progress import Progress

PIECE = 1 << 24
"""Most numbers of a weight that are summed at a time."""

Checkpoint = Mapping[str, Stored]
"""The tensors of a checkpoint by their names."""


def differing_weights(first: Checkpoint, other: Checkpoint) -> list[str]:
    """In what the weights of two checkpoints differ besides their values: names, shapes and dtypes, a line each."""
    lines = [f"{name}: only in the first" for name in first if name not in other]
    lines += [f"{name}: not in the first" for name in other if name not in first]
    for name in first:
        if name in other:
            here, there = first[name], other[name]
            if here.shape != there.shape:
                lines.append(f"{name}: shape {list(here.shape)} and {list(there.shape)}")
            elif here.dtype != there.dtype:
                lines.append(f"{name}: {_plain(here.dtype)} and {_plain(there.dtype)}")
    return lines


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def write_average(checkpoints: Sequence[Checkpoint], shares: Sequence[float], labels: Sequence[str], folder: Path) -> None:
    """Write the mean of checkpoints, which have the same names, shapes and dtypes, weighted by shares, into a folder.

    Each number is rounded once, to the dtype in which it is stored. Where all checkpoints have the same values, such as frozen
    weights, these are kept to the bit. Raises RecipeError, which names weight and model by its label, where a number is not
    finite, and where whole numbers or flags differ, of which there is no mean.
    """
    planned = {name: Planned(stored.shape, stored.dtype) for name, stored in checkpoints[0].items()}
    with Progress("merging", len(planned), brief=True) as progress:

        def weights() -> Iterator[tuple[str, Tensor]]:
            for place, name in enumerate(planned):
                progress.update(place)
                yield name, _whole(planned[name], _pieces(name, [one[name] for one in checkpoints], shares, labels))

        write_streamed(weights(), planned, folder)


def _whole(planned: Planned, pieces: Iterator[Tensor]) -> Tensor:
    """A tensor of pieces that come one after the other, so that sums in float32 are alive for one of them at a time."""
    flat, end = torch.empty(torch.Size(planned.shape).numel(), dtype=planned.dtype), 0
    for piece in pieces:
        begin, end = end, end + piece.numel()
        flat[begin:end] = piece.flatten()
    return flat.view(planned.shape)


def _pieces(name: str, stored: Sequence[Stored], shares: Sequence[float], labels: Sequence[str]) -> Iterator[Tensor]:
    shape = stored[0].shape
    rows = shape[0] if shape else 1
    step = max(1, PIECE * rows // max(1, torch.Size(shape).numel()))
    for first in range(0, rows, step):
        yield _mean(name, [one.rows(first, min(rows, first + step)) for one in stored], shares, labels)


def _mean(name: str, values: Sequence[Tensor], shares: Sequence[float], labels: Sequence[str]) -> Tensor:
    dtype = values[0].dtype
    for tensor, label in zip(values, labels, strict=True):
        if dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            raise RecipeError(f"{label}: {name} is not finite; take another checkpoint of it")
    if all(torch.equal(values[0], other) for other in values[1:]):
        return values[0]
    if not dtype.is_floating_point:
        raise RecipeError(f"{labels[0]}: {name} holds {_plain(dtype)}, which has no mean, and differs between the models")
    total = torch.zeros(values[0].shape, dtype=torch.promote_types(dtype, torch.float32))
    for tensor, share in zip(values, shares, strict=True):
        total.add_(tensor.to(total.dtype), alpha=share)
    return total.to(dtype)
