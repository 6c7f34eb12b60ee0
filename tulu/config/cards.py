"""GPUs that `tulu plan` knows: what they can do at most, and the power they take."""

from collections.abc import Mapping
from dataclasses import dataclass

from tulu.config.options import Gpu

POWER_SHARE = 0.85
"""Share of its highest power that a GPU takes while it trains: measurements of OLMo's training went up to 85 % and down to 15 %
while checkpoints were written (Morrison et al. 2025, arXiv 2503.05804, abstract)."""
PUE = 1.2
"""Energy of the data centre for each kWh of its machines (arXiv 2503.05804: that of the cluster Jupiter)."""


@dataclass(frozen=True)
class Card:
    """A GPU, from its maker's data sheet."""

    peak: float
    """Dense bf16 operations a second."""
    peak_fp32: float
    """float32 operations a second."""
    gib: float
    """Memory."""
    bandwidth: float
    """Bytes a second between GPU and memory."""
    watts: float
    """Highest power."""


CARDS: Mapping[Gpu, Card] = {
    "a100": Card(peak=312e12, peak_fp32=19.5e12, gib=80, bandwidth=2.039e12, watts=400),
    "h100": Card(peak=989e12, peak_fp32=67e12, gib=80, bandwidth=3.35e12, watts=700),
    "h200": Card(peak=989e12, peak_fp32=67e12, gib=141, bandwidth=4.8e12, watts=700),
}
"""NVIDIA's data sheets of the A100 80GB SXM, the H100 SXM and the H200 SXM, without sparsity."""
