"""What graphics cards can do at most, by their names."""

import re

import torch

PEAKS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500),
    ("B200", 2250),
    ("H200 NVL", 836),
    ("H200", 989),
    ("H100 NVL", 836),
    ("H100 PCIe", 756),
    ("H100", 989),
    ("H800", 989),
    ("A100", 312),
    ("A800", 312),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("A40", 150),
    ("A30", 165),
    ("A10G", 70),
    ("A10", 125),
    ("RTX 6000 Ada", 364),
    ("RTX A6000", 155),
    ("RTX 4090", 165),
    ("RTX 3090", 71),
    ("MI300X", 1307),
    ("MI250X", 383),
)
"""TFLOP/s of dense bf16 products with float32 sums, by a part of the card's name, the more special name first.

From the makers' data sheets and architecture papers, of which some give twice as much, with sparsity: NVIDIA "B200" and "GB200"
(a GPU each), "H200", "H100" (SXM, PCIe, NVL), "A100", "L40S", "L40", "L4", "A40", "A30", "A10", and the white papers of Ampere
GA102 and Ada; AMD "Instinct MI300X" and "MI250X". The A10G is the A10 as one cloud clocks it.
"""


def peak_flops(name: str) -> float | None:
    """FLOP/s of bf16 products that a card of this name reaches at most; None of one that is not known."""
    return next((tera * 1e12 for part, tera in PEAKS if re.search(rf"\b{part}\b", name, re.IGNORECASE)), None)


def peak_of(device: torch.device) -> float | None:
    """The same of a device; None of a CPU."""
    return peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
