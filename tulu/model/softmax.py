"""What is made of products with the head's weight: log-probs and entropies, and on the way back the gradient of the products.

Written out operation by operation, this reads and writes as many numbers as positions times vocabulary a dozen times, which
was a tenth of a training step of a 1B model on an H200. torch.compile makes one or two passes of the same definition. It is
taken on a GPU after its results have been compared with the plain ones, and where it is faster.

Shape letters: N positions that are read, V vocabulary.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("tulu")

EXACT = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""By the dtype of the gradient, the largest mean difference, relative to the mean size, that passes as rounding."""
COMPARED, TIMED = 300, 1024
"""Positions on which a version is compared with the plain one, and timed beside it."""
FASTER = 0.9
"""The share of the plain version's time that another may take."""
REPEATS = 5


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


PLAIN_RULE = LogitRule()


Statistics = tuple[Tensor, Tensor, Tensor | None]
"""Log-probs (N,), log-sum-exp (N,) and, where they are wanted, entropies in nats (N,)."""


@dataclass(frozen=True)
class Softmax:
    """Three functions; what the first one makes of the products is all that the others need of them."""

    name: str
    keep: Callable[[Tensor, float, LogitRule], Tensor]
    """(products (N, V), temperature, rule) -> what is kept of them (N, V); they may be overwritten."""
    read: Callable[[Tensor, Tensor, float, LogitRule, bool], Statistics]
    """(what was kept, targets (N,), temperature, rule, whether entropies are wanted)"""
    gradient: Callable[[Tensor, Tensor, Tensor, Tensor, float, LogitRule, torch.dtype, bool], Tensor]
    """(what was kept, log-sum-exp, targets, gradient of the log-probs (N,), temperature, rule, dtype, whether what was kept may
    be overwritten) -> gradient of the products (N, V), in at least the precision of the dtype."""


# -- operation by operation --------------------------------------------------------------------------------------------


def _logits_in_place(products_NV: Tensor, temperature: float, rule: LogitRule) -> Tensor:
    """(N, V) logits / temperature."""
    logits_NV = rule.apply(products_NV)
    return logits_NV if temperature == 1.0 else logits_NV.div_(temperature)


def _read_logits(logits_NV: Tensor, target_N: Tensor, temperature: float, rule: LogitRule, entropy: bool) -> Statistics:
    logsumexp_N = torch.logsumexp(logits_NV, dim=-1)
    logps_N = logits_NV.gather(1, target_N[:, None])[:, 0] - logsumexp_N
    if not entropy:
        return logps_N, logsumexp_N, None
    p_NV = torch.exp(logits_NV - logsumexp_N[:, None])
    return logps_N, logsumexp_N, logsumexp_N - p_NV.mul_(logits_NV).sum(-1)


def _gradient_in_place(
    logits_NV: Tensor,
    logsumexp_N: Tensor,
    target_N: Tensor,
    grad_N: Tensor,
    temperature: float,
    rule: LogitRule,
    dtype: torch.dtype,
    overwrite: bool,
) -> Tensor:
    grad_N = grad_N / temperature
    # A cap needs the logits once more.
    if overwrite and rule.cap is None:
        p_NV = logits_NV.sub_(logsumexp_N[:, None]).exp_()
    else:
        p_NV = torch.exp(logits_NV - logsumexp_N[:, None])
    grad_NV = p_NV.mul_(-grad_N[:, None])
    grad_NV.scatter_add_(1, target_N[:, None], grad_N[:, None])
    return rule.backward(grad_NV, logits_NV * temperature if rule.cap else logits_NV)


def gradient_with_entropy(
    logits_NV: Tensor,
    logsumexp_N: Tensor,
    target_N: Tensor,
    grad_N: Tensor,
    entropy_N: Tensor,
    grad_entropy_N: Tensor,
    temperature: float,
    rule: LogitRule,
) -> Tensor:
    """The gradient of the products where entropies have one too, of PLAIN's logits: d H / d logits = -p (log p + H)."""
    grad_N, grad_entropy_N = grad_N / temperature, grad_entropy_N / temperature
    logp_NV = logits_NV - logsumexp_N[:, None]
    p_NV = torch.exp(logp_NV)
    grad_NV = logp_NV.add_(entropy_N[:, None]).mul_(grad_entropy_N[:, None]).add_(grad_N[:, None]).mul_(p_NV).neg_()
    grad_NV.scatter_add_(1, target_N[:, None], grad_N[:, None])
    return rule.backward(grad_NV, logits_NV * temperature if rule.cap else logits_NV)


PLAIN = Softmax("operation by operation", _logits_in_place, _read_logits, _gradient_in_place)


# -- in one pass -------------------------------------------------------------------------------------------------------


def _logits(products_NV: Tensor, temperature: float, rule: LogitRule) -> Tensor:
    logits_NV = products_NV * rule.scale
    if rule.cap is not None:
        logits_NV = torch.tanh(logits_NV / rule.cap) * rule.cap
    return logits_NV / temperature


def read(products_NV: Tensor, target_N: Tensor, temperature: float, rule: LogitRule, entropy: bool) -> Statistics:
    """The statistics from their definition."""
    logits_NV = _logits(products_NV, temperature, rule)
    largest_N1 = logits_NV.amax(-1, keepdim=True)
    powers_NV = torch.exp(logits_NV - largest_N1)
    sum_N = powers_NV.sum(-1)
    logsumexp_N = largest_N1[:, 0] + torch.log(sum_N)
    # The target's own product is looked up, so that the logits need not be written anywhere.
    target_N1 = _logits(products_NV.gather(1, target_N[:, None]), temperature, rule)
    entropy_N = logsumexp_N - (powers_NV * logits_NV).sum(-1) / sum_N if entropy else None
    return target_N1[:, 0] - logsumexp_N, logsumexp_N, entropy_N


def gradient(
    products_NV: Tensor,
    logsumexp_N: Tensor,
    target_N: Tensor,
    grad_N: Tensor,
    temperature: float,
    rule: LogitRule,
    dtype: torch.dtype,
) -> Tensor:
    """With p = softmax, d logp / d logits = (onehot(target) - p) / temperature, and the rule takes it to the products."""
    logits_NV = _logits(products_NV, temperature, rule)
    is_target_NV = torch.arange(products_NV.shape[1], device=products_NV.device)[None] == target_N[:, None]
    upstream_N1 = grad_N[:, None] / temperature
    grad_NV = torch.where(is_target_NV, upstream_N1, 0.0) - upstream_N1 * torch.exp(logits_NV - logsumexp_N[:, None])
    if rule.cap is not None:
        grad_NV = grad_NV * (1 - (logits_NV * temperature / rule.cap) ** 2)
    return (grad_NV * rule.scale).to(dtype)


def in_one_pass(name: str, read: Callable[..., Statistics], gradient: Callable[..., Tensor]) -> Softmax:
    """A softmax of functions with the arguments of those above, which keep the products as they are."""
    # Nothing is overwritten, so the last argument says nothing to them.
    return Softmax(name, lambda products_NV, *settings: products_NV, read, lambda *arguments: gradient(*arguments[:-1]))


DEFINITION = in_one_pass("its definition", read, gradient)


def compiled() -> Softmax:
    """What torch.compile makes of the definition."""
    return in_one_pass("torch.compile", torch.compile(read), torch.compile(gradient))


# -- which is taken ----------------------------------------------------------------------------------------------------


Clock = Callable[[Callable[[], Any], torch.device], float]
"""(function, device) -> seconds that the device takes for it."""


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """The mean of REPEATS calls."""
    began = 0.0
    for repeat in range(REPEATS + 1):
        if repeat == 1:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began = time.perf_counter()
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - began) / REPEATS


@cache
def chosen(
    device: torch.device, vocabulary: int, dtype: torch.dtype, temperature: float, rule: LogitRule, entropy: bool
) -> Softmax:
    """What computes the log-probs of a model on a device: on a CPU, and in float64, the plain version."""
    if device.type != "cuda" or dtype not in EXACT or find_spec("triton") is None:
        return PLAIN
    try:
        best = faster_and_exact(compiled(), device, vocabulary, dtype, temperature, rule, entropy)
    except Exception as error:  # noqa: BLE001  (compilers and drivers fail in ways of their own)
        log.warning("the softmax of %d logits is computed %s: %s: %s", vocabulary, PLAIN.name, type(error).__name__, error)
        return PLAIN
    log.info("the softmax of %d logits is computed by %s", vocabulary, best.name)
    return best


@torch.no_grad()
def faster_and_exact(
    version: Softmax,
    device: torch.device,
    vocabulary: int,
    dtype: torch.dtype,
    temperature: float,
    rule: LogitRule,
    entropy: bool,
    clock: Clock = seconds,
) -> Softmax:
    """A version, if it gives what the plain one gives in less time; otherwise the plain one."""
    random = torch.Generator(device).manual_seed(0)

    def both_ways(softmax: Softmax, count: int) -> list[Tensor]:
        products_NV = 3.0 * torch.randn(count, vocabulary, generator=random, device=device)
        target_N = torch.arange(count, device=device) % vocabulary
        kept_NV = softmax.keep(products_NV, temperature, rule)
        logps_N, logsumexp_N, entropy_N = softmax.read(kept_NV, target_N, temperature, rule, entropy)
        upstream_N = torch.linspace(-1, 2, count, device=device)
        grad_NV = softmax.gradient(kept_NV, logsumexp_N, target_N, upstream_N, temperature, rule, dtype, True)
        return [logps_N, logsumexp_N, *([] if entropy_N is None else [entropy_N]), grad_NV.to(dtype)]

    # A second number of positions is another case for a compiler, which must be right as well.
    for count in (COMPARED, 2 * COMPARED):
        random.manual_seed(0)
        found = both_ways(version, count)
        random.manual_seed(0)
        if not _close(found, both_ways(PLAIN, count), dtype):
            log.warning("the softmax by %s is not exact", version.name)
            return PLAIN
    needed, plain = (clock(partial(both_ways, softmax, TIMED), device) for softmax in (version, PLAIN))
    return version if needed < FASTER * plain else PLAIN


def _close(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether results agree: all but the last, which is a gradient, are float32."""
    limits = [*[EXACT[torch.float32]] * (len(found) - 1), EXACT[dtype]]
    off = [(a.float() - b.float()).abs().mean() / b.float().abs().mean() for a, b in zip(found, expected, strict=True)]
    return all(float(difference) <= limit for difference, limit in zip(off, limits, strict=True))
