"""Numbers on their way to a device, without waiting until it has done what it was given before."""

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`, without waiting until that has done what it was given before."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    # A copy from memory that is not pinned waits for its turn.
    return tensor.pin_memory().to(device, non_blocking=True)


_distinct = WeakIdKeyDictionary()
"""Positions on a device, and the same without repetition."""


def send_places(places: Tensor, device: torch.device) -> Tensor:
    """Positions on `device`, of which `distinct` is known there."""
    sent = send(places, device)
    if sent is not places:
        _distinct[sent] = send(places.unique(), device)
    return sent


def note_distinct(places: Tensor, without_repetition: Tensor) -> None:
    """Say what `distinct` is of positions that a device has put together."""
    _distinct[places] = without_repetition


def distinct(places: Tensor) -> Tensor:
    """Positions without repetition, ascending.

    How many they are is known to who has them alone. Where a device has them that works on its own, they were counted before
    they were sent there: to ask it would mean to wait for it, once in every row.
    """
    known: Tensor | None = _distinct.get(places)
    return places.unique() if known is None else known
