"""The device: its clock, its memory, and the figures that a timed step gives of both."""

import time

import torch

from benchmarks.gpu_cases import Figures
from tulu.model.cards import peak_of


def figures(useful: int, computed: int, work: float, seconds: float, device: torch.device) -> Figures:
    """What the table and the JSON say of a step that took so many seconds."""
    most = peak_of(device)
    return {
        "tokens_per_second": round(useful / seconds),
        "computed_tokens_per_second": round(computed / seconds),
        "mfu_percent": None if most is None else round(100 * work / seconds / most, 1),
        "peak_gib": memory_taken(device),
        "step_seconds": round(seconds, 4),
        "step_tokens": useful,
        "step_flops": work,
    }


def memory_of(device: torch.device) -> float | None:
    """Bytes of the card; None on a CPU, where the tiny shapes always fit."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def reset_memory(device: torch.device) -> None:
    """Begin to look for the largest memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_taken(device: torch.device) -> float | None:
    """The most GiB that were allocated since; None on a CPU."""
    return round(torch.cuda.max_memory_allocated(device) / 2**30, 1) if device.type == "cuda" else None


def now(device: torch.device) -> float:
    """The time at which the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
