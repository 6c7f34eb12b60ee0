"""Flash attention of a whole packed row in one call, by the fastest kernels that are installed and that compute it rightly.

torch has the second version of flash attention built in, as `varlen_attn`. The third and the fourth, which are faster on newer
cards, come as packages of their own: torch puts them behind the same function, and the `kernels` package brings functions of
its own. A kernel is chosen once for a GPU, after its values and its gradients have been compared with attention as it is
defined.

Shape letters: T queries, K keys, D size of a head.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger("tulu")

LARGEST_HEAD = 256
"""The largest head of flash attention."""
HEAD_UNIT = 8
"""Heads have a size that is a multiple of it; others are filled up with zeros, which change no score."""
TOLERANCE = 3e-2
"""The largest mean difference of a kernel in bfloat16 from the definition, relative to the mean size, that is rounding."""
HUB_KERNELS = "kernels-community/flash-attn3"
"""Where the `kernels` package finds the third version, and in which of its editions."""
HUB_EDITION = 1


@dataclass(frozen=True)
class Row:
    """Where the segments of a row are, as variable-length attention takes it."""

    queries: Tensor
    """(segments + 1,) cumulative numbers of queries."""
    keys: Tensor
    """(segments + 1,) cumulative numbers of keys; the last query of a segment stands at its last key."""
    longest_queries: int
    longest_keys: int


Attend = Callable[[Tensor, Tensor, Tensor, Row, float, int | None], Tensor]
"""(queries (T, heads, D), keys and values (K, key heads, D), row, what scores are multiplied by, window) -> (T, heads, D).

A key is seen while query - key < window; None stands for no window."""


def fits(query_size: int, value_size: int) -> bool:
    """Whether flash attention takes heads of these sizes."""
    return max(query_size, value_size) <= LARGEST_HEAD


def attend(
    attention: Attend, query: Tensor, key: Tensor, value: Tensor, row: Row, scaling: float | None, window: int | None
) -> Tensor:
    """Attention of a row: queries (T, heads, d), keys (K, key heads, d), values (K, key heads, v) -> (T, heads, v).

    `scaling` of None stands for 1/√d. Heads may have any size that `fits`, and values another one than keys.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    value_size = value.shape[-1]
    size = -(-max(query.shape[-1], value_size) // HEAD_UNIT) * HEAD_UNIT
    query, key, value = (_filled(tensor, size) for tensor in (query, key, value))
    attended = attention(query, key, value, row, scaling, window)
    # Some architectures view the heads as one dimension, which needs them in one piece.
    return attended[..., :value_size].contiguous()


def _filled(tensor: Tensor, size: int) -> Tensor:
    """Heads of the given size, with zeros behind what there is."""
    missing = size - tensor.shape[-1]
    return torch.nn.functional.pad(tensor, (0, missing)) if missing else tensor


def by_varlen(varlen_attn: Callable[..., Any]) -> Attend:
    """Attention through torch's function, whatever its signature is: that of torch 2.11 finds grouped heads by itself."""
    told_of_groups = "enable_gqa" in inspect.signature(varlen_attn).parameters

    def attention(query: Tensor, key: Tensor, value: Tensor, row: Row, scaling: float, window: int | None) -> Tensor:
        groups = {"enable_gqa": query.shape[1] != key.shape[1]} if told_of_groups else {}
        attended: Tensor = varlen_attn(
            *(query, key, value, row.queries, row.keys, row.longest_queries, row.longest_keys),
            scale=scaling,
            # The window of transformers includes the query itself; that of flash attention counts the keys to its left.
            window_size=(-1, 0) if window is None else (window - 1, 0),
            **groups,
        )
        return attended

    return attention


def by_package(flash_attn_varlen_func: Callable[..., Any], unlimited: int | None = -1) -> Attend:
    """Attention through the function that the packages of flash attention offer; `unlimited` is its word for no window."""

    def attention(query: Tensor, key: Tensor, value: Tensor, row: Row, scaling: float, window: int | None) -> Tensor:
        attended = flash_attn_varlen_func(
            *(query, key, value),
            cu_seqlens_q=row.queries,
            cu_seqlens_k=row.keys,
            max_seqlen_q=row.longest_queries,
            max_seqlen_k=row.longest_keys,
            softmax_scale=scaling,
            causal=True,
            window_size=(unlimited, unlimited) if window is None else (window - 1, 0),
        )
        # Some editions return the log-sum-exp beside it.
        found: Tensor = attended[0] if isinstance(attended, tuple) else attended
        return found

    return attention


@cache
def chosen(device: torch.device) -> Attend | None:
    """The attention of a GPU: the newest that is installed for it and right there. It is named in the log; None if none is right.

    Ask for it before the first step: what is compared here must not be recorded for a backward pass.
    """
    card = torch.cuda.get_device_name(device)
    for name, load in candidates(torch.cuda.get_device_capability(device)[0]):
        try:
            attention = load()
            fault = fault_of(attention, device)
        except Exception as error:  # noqa: BLE001  (a package that is built for another torch or card fails in its own way)
            fault = f"{type(error).__name__}: {error}"
        if not fault:
            log.info("attention on %s: %s", card, name)
            return attention
        log.warning("%s is not used on %s: %s", name, card, fault)
        restore()
    log.warning("attention on %s: one call for each segment, which is slow", card)
    return None


def torch_varlen() -> Callable[..., Any]:
    """torch's variable-length attention."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def candidates(generation: int) -> Iterator[tuple[str, Callable[[], Attend]]]:
    """(name, how it is loaded) of the packages that are installed for a generation of GPUs (9 is Hopper), the fastest first."""
    if generation == 9 and find_spec("flash_attn_interface"):
        yield "flash attention 3", lambda: _activated("FA3")
    if generation in (9, 10) and find_spec("flash_attn") and find_spec("flash_attn.cute"):
        yield "flash attention 4", lambda: _activated("FA4")
        # torch calls inner functions of the package, which change from edition to edition.
        yield "flash attention 4 by its own function", _fourth
    if generation == 9 and find_spec("kernels"):
        yield f"flash attention 3 of {HUB_KERNELS}", _from_hub
    yield "flash attention 2 of torch", lambda: by_varlen(torch_varlen())


def _activated(name: str) -> Attend:
    """torch's function, with an installed version of flash attention behind it."""
    from torch.nn.attention import activate_flash_attention_impl

    activate_flash_attention_impl(name)
    return by_varlen(torch_varlen())


def _fourth() -> Attend:
    """The function of the fourth version's package."""
    from flash_attn.cute import flash_attn_varlen_func

    return by_package(flash_attn_varlen_func, unlimited=None)


def restore() -> None:
    """Put torch's own version back behind its function."""
    from torch.nn import attention

    if attention.current_flash_attention_impl() is not None:
        attention.restore_flash_attention_impl()


def _from_hub() -> Attend:
    """The function that the `kernels` package has for this torch and this card."""
    from kernels import get_kernel

    return by_package(get_kernel(HUB_KERNELS, version=HUB_EDITION).flash_attn_varlen_func)


@torch.enable_grad()
def fault_of(attention: Attend, device: torch.device) -> str:
    """What is wrong with an attention's values or gradients in bfloat16; empty where nothing is."""
    generator = torch.Generator().manual_seed(0)
    # A segment, one whose first three keys are a prompt, and one of a single token.
    queries, keys = (70, 40, 1), (70, 43, 1)
    row = Row(_cumulative(queries, device), _cumulative(keys, device), max(queries), max(keys))

    def random(length: int, heads: int) -> Tensor:
        return torch.randn(length, heads, 64, generator=generator).to(device, torch.bfloat16).requires_grad_()

    for key_heads in (4, 2):
        inputs = (random(sum(queries), 4), random(sum(keys), key_heads), random(sum(keys), key_heads))
        upstream = random(sum(queries), 4).detach()
        for window in (None, 20):
            found = attention(*inputs, row, 0.125, window)
            query, key, value = wide = [tensor.detach().float().requires_grad_() for tensor in inputs]
            expected = as_defined(query, key, value, queries, keys, 0.125, window)
            results = [found.detach(), *torch.autograd.grad(found, inputs, upstream)]
            truths = [expected.detach(), *torch.autograd.grad(expected, wide, upstream.float())]
            for what, result, truth in zip(("values", "queries", "keys", "values' gradients"), results, truths, strict=True):
                off = float((result.float() - truth).abs().mean() / truth.abs().mean())
                if not off <= TOLERANCE:
                    case = f"{key_heads} of 4 key heads, {'no window' if window is None else f'a window of {window}'}"
                    return f"{what} are off by {off:.1e} of their size ({case})"
    return ""


def _cumulative(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor([0, *lengths], dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)


def as_defined(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: tuple[int, ...],
    keys: tuple[int, ...],
    scaling: float,
    window: int | None,
) -> Tensor:
    """Attention of segments with these numbers of queries and keys from its definition: all scores, mask and softmax."""
    outputs = []
    for query_S, key_S, value_S in zip(query.split(queries), key.split(keys), value.split(keys), strict=True):
        repeat = query.shape[1] // key.shape[1]
        key_S, value_S = key_S.repeat_interleave(repeat, 1), value_S.repeat_interleave(repeat, 1)
        scores = torch.einsum("qhd,khd->hqk", query_S, key_S) * scaling
        distance = torch.arange(len(key_S) - len(query_S), len(key_S), device=query.device)[:, None]
        distance = distance - torch.arange(len(key_S), device=query.device)[None]
        hidden = (distance < 0) | (distance >= (window or len(key_S)))
        shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", shares, value_S))
    return torch.cat(outputs)
