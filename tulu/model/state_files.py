"""The files in which a process keeps what training goes on from: tensors, the optimizer's state and random states."""

import random
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor


def write(state: Any, file: Path) -> None:
    """Write tensors and plain values."""
    torch.save(state, file)


def read(file: Path) -> Any:
    """What `write` wrote, on the CPU; nothing but tensors and plain values is ever unpickled."""
    return torch.load(file, map_location="cpu", weights_only=True)


@torch.no_grad()
def fill(tensors: dict[str, Tensor], stored: dict[str, Tensor], file: Path) -> None:
    """Copy stored values into tensors in place. Raises ValueError if names or shapes are others."""
    for name, tensor in tensors.items():
        if name not in stored or stored[name].shape != tensor.shape:
            found = f"shape {tuple(stored[name].shape)}" if name in stored else "nothing"
            raise ValueError(f"{file.name} holds {found} for {name}, which has shape {tuple(tensor.shape)}")
        tensor.copy_(stored[name])


def write_random_states(folder: Path, rank: int) -> None:
    """Write the random states of this process."""
    state: Any = numpy.random.get_state()
    _, numbers, place, has_gauss, gauss = state
    write(
        {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
            "python": random.getstate(),
            "numpy": (torch.from_numpy(numbers.astype(numpy.int64)), int(place), int(has_gauss), float(gauss)),
        },
        folder / f"random_states_{rank}.pkl",
    )


def read_random_states(folder: Path, rank: int) -> None:
    """Go on with the random states that this process wrote."""
    states = read(folder / f"random_states_{rank}.pkl")
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    if torch.backends.mps.is_available() and states.get("mps") is not None:
        torch.mps.set_rng_state(states["mps"])
    random.setstate(states["python"])
    numbers, *rest = states["numpy"]
    numpy.random.set_state(("MT19937", numbers.numpy().astype(numpy.uint32), *rest))
