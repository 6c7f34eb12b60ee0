"""Log-probs and entropy of given tokens from hidden states, a chunk at a time, so that all logits never exist at once.

The products with the head's weight are taken in the dtype of that weight, in the forward and in the backward pass alike; what
is made of them, from the logits to the softmax, is float32.

Shape letters: N positions that are read, H hidden size, V vocabulary.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from tulu.model.softmax import PLAIN, PLAIN_RULE, LogitRule, chosen, gradient_with_entropy

CHUNK_ELEMENTS = 1 << 25
"""The most logits that exist at once on a CPU (128 MiB in float32); more positions than that are projected chunk by chunk."""
CHUNKS = (4096, 2048, 1024, 512)
"""How many positions may be projected at once on a GPU. Fewer keep it less busy, and more only take memory."""
CHUNK_SHARE = 1 / 16
"""The share of a GPU's memory that one chunk may take."""
BYTES_PER_LOGIT = 10
"""What exists of a chunk at once: logits and probabilities in float32, and a gradient of 16 bits."""
HALF = (torch.bfloat16, torch.float16)


class _TokenLogps(torch.autograd.Function):
    """log softmax(hidden Wᵀ / temperature)[target] with a backward pass that needs no stored logits.

    With p = softmax, d logp / d logits = (onehot(target) - p) / temperature, and the rule takes it to the products. Each chunk
    of the backward pass therefore computes its logits again, takes p from them and the stored log-sum-exp, and multiplies
    twice. Where everything fits one chunk, its logits are stored instead.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        temperature: float,
        chunk: int,
        entropy: bool,
        rule: LogitRule,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        n = len(hidden_NH)
        settings = (temperature, rule, entropy)
        # The gradient of a bias is summed before it is rounded, which one pass does not offer, nor the gradient of entropies.
        plain = bias_V is not None or entropy_gradient
        softmax = PLAIN if plain else chosen(hidden_NH.device, len(weight_VH), weight_VH.dtype, *settings)
        kept_NV: Tensor | None = None
        logps, entropies, normalisers = [], [], []
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            kept_NV = softmax.keep(_products(hidden_NH[part], weight_VH, bias_V), temperature, rule)
            logps_N, logsumexp_N, entropy_N = softmax.read(kept_NV, target_N[part], *settings)
            logps.append(logps_N)
            normalisers.append(logsumexp_N)
            entropies += [] if entropy_N is None else [entropy_N]
        stored_NV = kept_NV if n <= chunk else None
        ctx.temperature, ctx.chunk, ctx.rule, ctx.softmax = temperature, chunk, rule, softmax
        all_entropy_N = torch.cat(entropies) if entropy else hidden_NH.new_empty(0)
        wanted_N = all_entropy_N if entropy and entropy_gradient else None
        if wanted_N is None:
            ctx.mark_non_differentiable(all_entropy_N)
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, torch.cat(normalisers), stored_NV, wanted_N)
        return torch.cat(logps), all_entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, bias_V, target_N, logsumexp_N, stored_NV, entropy_N = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_NH) if needs_hidden else None
        grad_weight = _Sum(weight_VH, len(hidden_NH) > ctx.chunk) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
        for start in range(0, len(hidden_NH), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            kept_NV = stored_NV
            if kept_NV is None:
                kept_NV = ctx.softmax.keep(_products(hidden_NH[part], weight_VH, bias_V), ctx.temperature, ctx.rule)
            upstream = (kept_NV, logsumexp_N[part], target_N[part], grads[0][part])
            if entropy_N is None:
                settings = (ctx.temperature, ctx.rule, weight_VH.dtype, stored_NV is None)
                grad_NV = ctx.softmax.gradient(*upstream, *settings)
            else:
                grad_NV = gradient_with_entropy(*upstream, entropy_N[part], grads[1][part], ctx.temperature, ctx.rule)
            if grad_bias is not None:
                grad_bias += grad_NV.sum(0)
            grad_NV = grad_NV.to(weight_VH.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_NV @ weight_VH
            if grad_weight is not None:
                grad_weight.add(grad_NV, hidden_NH[part])
        total = None if grad_weight is None else grad_weight.total()
        return grad_hidden, total, grad_bias, None, None, None, None, None, None


class _Sum:
    """The gradient of the weight, added up over the chunks: in float32 where one rounds each of several to 16 bits."""

    def __init__(self, weight_VH: Tensor, several: bool) -> None:
        self.dtype = weight_VH.dtype
        wide = torch.float32 if several and self.dtype in HALF else self.dtype
        self.sum_VH = torch.zeros_like(weight_VH, dtype=wide)

    def add(self, grad_NV: Tensor, hidden_NH: Tensor) -> None:
        """Add the products of one chunk."""
        if self.sum_VH.dtype == self.dtype:
            self.sum_VH += grad_NV.T @ hidden_NH
        elif grad_NV.is_cuda:
            # One kernel multiplies in 16 bits and adds in float32.
            torch.addmm(self.sum_VH, grad_NV.T, hidden_NH, out_dtype=torch.float32, out=self.sum_VH)
        else:
            self.sum_VH += grad_NV.T @ hidden_NH

    def total(self) -> Tensor:
        """The gradient in the dtype of the weight."""
        return self.sum_VH.to(self.dtype)


def _products(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None) -> Tensor:
    """(N, V) hidden Wᵀ + bias in at least float32."""
    if hidden_NH.is_cuda and weight_VH.dtype in HALF:
        # The kernel adds up in float32. A result of 16 bits would round a logit of 20 by up to 0.06.
        products_NV = torch.mm(hidden_NH, weight_VH.T, out_dtype=torch.float32)
        return products_NV if bias_V is None else products_NV.add_(bias_V)
    products_NV = torch.nn.functional.linear(hidden_NH, weight_VH, bias_V)
    return products_NV.to(torch.promote_types(products_NV.dtype, torch.float32))


@cache
def _memory_of(device: torch.device) -> int:
    """Bytes of a GPU. What is free of them differs from run to run, and with it the order of sums would."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def chunk_for(vocabulary: int, device: torch.device) -> int:
    """How many positions are projected at once."""
    if device.type != "cuda":
        return max(1, CHUNK_ELEMENTS // vocabulary)
    fits = CHUNK_SHARE * _memory_of(device) / (BYTES_PER_LOGIT * vocabulary)
    return next((chunk for chunk in CHUNKS if chunk <= fits), CHUNKS[-1])


def token_logps(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    target_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
    rule: LogitRule = PLAIN_RULE,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """(N,) log-probs of `target_N` under softmax(hidden Wᵀ / temperature), and with `entropy` (N,) entropies in nats.

    `rule` says what an architecture does to the products before they are divided by the temperature. Both results are float32,
    or float64 for float64 input. Entropies are empty without `entropy`, and carry a gradient with `entropy_gradient` alone.
    `chunk` is the number of positions that are projected at once; the default is that of `chunk_for`.
    """
    chunk = chunk or chunk_for(len(weight_VH), hidden_NH.device)
    if len(hidden_NH) == 0:
        # The result is empty, and still part of the graph: with sharded weights every process runs the same backward pass.
        empty_N = (hidden_NH.sum() + 0.0 * weight_VH.sum()) * target_N.new_zeros(0, dtype=torch.float32)
        return empty_N, empty_N.detach()
    hidden_NH = hidden_NH.to(weight_VH.dtype)
    bias_V = None if bias_V is None else bias_V.to(weight_VH.dtype)
    logps_N, entropy_N = _TokenLogps.apply(
        hidden_NH, weight_VH, bias_V, target_N, temperature, chunk, entropy, rule, entropy_gradient
    )
    return logps_N, entropy_N
