"""The vocabulary head alone, forward and backward: ours beside torch's and Liger's fused losses on the same tensors.

Theirs give a mean loss and no log-prob of a token, no entropy, no temperature: they could stand in for SFT alone.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.gpu_cases import Figures, Unsuitable
from benchmarks.gpu_device import memory_taken, now, reset_memory
from benchmarks.gpu_shapes import Shape
from tulu.model.logprobs import token_logps

POSITIONS = 8192
REPEATS = 5

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden states, weight, targets) -> mean negative log-likelihood."""


def ours(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """The head of every stage."""
    return -token_logps(hidden_NH, weight_VH, target_N)[0].mean()


def plain(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """All logits at once, and torch's cross entropy of them in float32."""
    return torch.nn.functional.cross_entropy((hidden_NH @ weight_VH.T).float(), target_N)


def torch_fused(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """torch's own, from 2.12 on."""
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused is None:
        raise Unsuitable(f"torch {torch.__version__} has no linear_cross_entropy")
    loss: Tensor = fused(hidden_NH, weight_VH, target_N)
    return loss


def liger(hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor) -> Tensor:
    """Liger's, which is written in Triton."""
    if find_spec("liger_kernel") is None or not hidden_NH.is_cuda:
        raise Unsuitable("liger-kernel needs a GPU" if find_spec("liger_kernel") else "liger-kernel is not installed")
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: Tensor = LigerFusedLinearCrossEntropyLoss()(weight_VH, hidden_NH, target_N)
    return loss


SIDES: dict[str, Loss] = {
    "token_logps": ours,
    "all logits at once": plain,
    "torch linear_cross_entropy": torch_fused,
    "Liger fused linear cross entropy": liger,
}


def measure(side: Loss, shape: Shape, device: torch.device) -> Figures:
    """Milliseconds and memory of one forward and backward pass in bf16, and how far the loss is from float64's."""
    count = POSITIONS if device.type == "cuda" else 64
    torch.manual_seed(0)
    with torch.device(device):
        hidden = torch.randn(count, shape.hidden, dtype=torch.bfloat16, requires_grad=True)
        weight = (0.02 * torch.randn(shape.vocabulary, shape.hidden)).bfloat16().requires_grad_()
        target = torch.randint(0, shape.vocabulary, (count,))
    reset_memory(device)
    began, loss = 0.0, torch.zeros(())
    for repeat in range(REPEATS + 2):
        if repeat == 2:
            began = now(device)
        loss = side(hidden, weight, target)
        loss.backward()
        hidden.grad = weight.grad = None
    seconds = (now(device) - began) / REPEATS
    found = {"milliseconds": round(1000 * seconds, 2), "peak_gib": memory_taken(device)}
    sample = slice(0, 64)
    with torch.no_grad():
        exact = torch.nn.functional.cross_entropy(hidden[sample].double() @ weight.double().T, target[sample])
        off = float((side(hidden[sample], weight, target[sample]).double() - exact).abs())
    return {**found, "loss_off_by": off}
