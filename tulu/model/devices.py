"""Which device this process computes on, and what a device lacks."""

import logging
from functools import cache

import torch
from torch.nn import functional

from tulu.config.processes import world_size

log = logging.getLogger("tulu")

TOLERANCE = 1e-3
"""The largest difference from the CPU, relative to the largest number, that is rounding in float32."""
AMPERE = (8, 0)
"""The first compute capability of NVIDIA with products in bfloat16; torch imitates them on earlier cards, slower than float32."""


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU: a GPU of CUDA, or that of a Mac (MPS) if it computes what the CPU does.

    Several processes on a Mac compute on its CPU, since torch connects none over MPS.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available() and world_size() == 1:
        mps = torch.device("mps")
        if _is_right(mps):
            return mps
    return torch.device("cpu")


@cache
def _is_right(device: torch.device) -> bool:
    """Whether a device computes as the CPU does; if not, it is said once why it is not used."""
    if fault := fault_of(device):
        log.warning("%s is not used: %s", name_of(device), fault)
    return not fault


def fault_of(device: torch.device) -> str:
    """What a device does not compute as the CPU does, of what every model needs; empty where nothing differs."""
    try:
        expected, found = (_values_and_gradients(torch.device(place)) for place in ("cpu", device))
    except Exception as error:  # noqa: BLE001
        # Whatever an operation that the device lacks raises.
        return f"{type(error).__name__}: {error}"
    for name, right, given in zip(("attention", "log-probs", "gradients"), expected, found, strict=True):
        difference = float((right - given).abs().max() / right.abs().max())
        if not difference <= TOLERANCE:
            return f"its {name} differ from the CPU's by {difference:.1g} of the largest"
    return ""


def _values_and_gradients(device: torch.device) -> tuple[torch.Tensor, ...]:
    """Masked attention with grouped keys, log-probs behind it, and the gradients of both, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 48, 16, generator=generator).to(device).requires_grad_()
    key, value = (torch.randn(1, 2, 48, 16, generator=generator).to(device) for _ in range(2))
    mask = torch.ones(48, 48, dtype=torch.bool).tril().to(device)
    heads = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    logps = functional.log_softmax(heads.transpose(1, 2).reshape(48, 64), dim=-1)
    logps[torch.arange(48, device=device), torch.arange(48, device=device) % 64].sum().backward()
    assert query.grad is not None
    return tuple(tensor.detach().cpu() for tensor in (heads, logps, query.grad))


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 by itself."""
    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= AMPERE
    try:
        # macOS before 14 has none.
        numbers = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        return bool(float((numbers @ numbers).sum()) == 8.0)
    except (RuntimeError, TypeError):
        return False


def name_of(device: torch.device) -> str:
    """What people call a device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else {"mps": "this Mac's GPU"}.get(device.type, "the CPU")
