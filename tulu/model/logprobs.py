"""Log-probs and entropy of given tokens from hidden states, a chunk at a time, so that all logits never exist at once.

Shape letters: N positions that are read, H hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 25
"""The most logits that exist at once (128 MiB in float32); more positions than that are projected chunk by chunk."""


@dataclass(frozen=True)
class LogitRule:
    """How an architecture makes logits of the products hidden Wᵀ: scale · product, squeezed into (-cap, cap) by tanh."""

    scale: float = 1.0
    cap: float | None = None

    def apply(self, products_NV: Tensor) -> Tensor:
        """(N, V) logits; the products are overwritten where they change."""
        if self.scale != 1.0:
            products_NV = products_NV.mul_(self.scale)
        return products_NV if self.cap is None else products_NV.div_(self.cap).tanh_().mul_(self.cap)

    def backward(self, grad_NV: Tensor, logits_NV: Tensor) -> Tensor:
        """The gradient of the products, of that of the logits, which is overwritten where it changes."""
        if self.cap is not None:
            # d cap·tanh(x / cap) / dx = 1 - tanh², and tanh is logits / cap.
            grad_NV = grad_NV.mul_(1 - (logits_NV / self.cap).square_())
        return grad_NV if self.scale == 1.0 else grad_NV.mul_(self.scale)


PLAIN = LogitRule()


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
    ) -> tuple[Tensor, Tensor]:
        n = len(hidden_NH)
        stored_NV: Tensor | None = None
        logps, entropies, normalisers = [], [], []
        for start in range(0, n, chunk):
            logits_NV = _logits(hidden_NH[start : start + chunk], weight_VH, bias_V, temperature, rule)
            logsumexp_N = torch.logsumexp(logits_NV, dim=-1)
            target_logit_N = logits_NV.gather(1, target_N[start : start + chunk, None])[:, 0]
            logps.append(target_logit_N - logsumexp_N)
            normalisers.append(logsumexp_N)
            stored_NV = logits_NV if n <= chunk else None
            if entropy:
                p_NV = torch.exp(logits_NV - logsumexp_N[:, None])
                entropies.append(logsumexp_N - p_NV.mul_(logits_NV).sum(-1))
        ctx.temperature, ctx.chunk, ctx.rule = temperature, chunk, rule
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, torch.cat(normalisers), stored_NV)
        entropy_N = torch.cat(entropies) if entropy else hidden_NH.new_empty(0)
        ctx.mark_non_differentiable(entropy_N)
        return torch.cat(logps), entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_N = grads[0] / ctx.temperature
        hidden_NH, weight_VH, bias_V, target_N, logsumexp_N, stored_NV = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden_NH) if needs_hidden else None
        grad_weight = torch.zeros_like(weight_VH) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias and bias_V is not None else None
        for start in range(0, len(hidden_NH), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_NV = stored_NV
            if logits_NV is None:
                logits_NV = _logits(hidden_NH[part], weight_VH, bias_V, ctx.temperature, ctx.rule)
            grad_NV = torch.exp(logits_NV - logsumexp_N[part, None]).mul_(-grad_N[part, None])
            grad_NV.scatter_add_(1, target_N[part, None], grad_N[part, None])
            grad_NV = ctx.rule.backward(grad_NV, logits_NV * ctx.temperature if ctx.rule.cap else logits_NV).to(hidden_NH.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad_NV @ weight_VH.to(hidden_NH.dtype)
            if grad_weight is not None:
                grad_weight += grad_NV.T @ hidden_NH[part]
            if grad_bias is not None:
                grad_bias += grad_NV.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None


def _logits(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, temperature: float, rule: LogitRule) -> Tensor:
    """(N, V) logits / temperature in at least float32."""
    bias = None if bias_V is None else bias_V.to(hidden_NH.dtype)
    logits_NV = torch.nn.functional.linear(hidden_NH, weight_VH.to(hidden_NH.dtype), bias)
    logits_NV = rule.apply(logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32)))
    return logits_NV if temperature == 1.0 else logits_NV / temperature


def token_logps(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    target_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    temperature: float = 1.0,
    chunk: int | None = None,
    entropy: bool = False,
    rule: LogitRule = PLAIN,
) -> tuple[Tensor, Tensor]:
    """(N,) log-probs of `target_N` under softmax(hidden Wᵀ / temperature), and with `entropy` (N,) entropies in nats.

    `rule` says what an architecture does to the products before they are divided by the temperature. Both results are float32,
    or float64 for float64 input. Entropies carry no gradient and are empty without `entropy`. `chunk` is the number of
    positions that are projected at once; the default keeps the logits within CHUNK_ELEMENTS.
    """
    chunk = chunk or max(1, CHUNK_ELEMENTS // len(weight_VH))
    if len(hidden_NH) == 0:
        # The result is empty, and still part of the graph: with sharded weights every process runs the same backward pass.
        empty_N = (hidden_NH.sum() + 0.0 * weight_VH.sum()) * target_N.new_zeros(0, dtype=torch.float32)
        return empty_N, empty_N.detach()
    logps_N, entropy_N = _TokenLogps.apply(hidden_NH, weight_VH, bias_V, target_N, temperature, chunk, entropy, rule)
    return logps_N, entropy_N
