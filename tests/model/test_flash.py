"""Flash attention of a row, with functions of torch's and of other packages' signatures that compute it on the CPU."""

import logging
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from tests.model.test_attention import BATCH, dense, visible
from tests.samples import make_group
from tulu.model import attention, flash
from tulu.model.attention import layout, segment_attention
from tulu.model.batch import pack_row

CPU = torch.device("cpu")


def ragged(
    query: Tensor, key: Tensor, value: Tensor, queries: Tensor, keys: Tensor, scale: float | None, window: tuple[int, int]
) -> Tensor:
    """Causal attention of segments by SDPA; flash attention's window counts the keys to the left of the query."""
    assert query.shape[-1] == key.shape[-1] == value.shape[-1]
    assert query.shape[-1] % 8 == 0, "the kernel takes no other head"
    assert all(tensor.is_contiguous() for tensor in (query, key, value))
    outputs = []
    for begin, end, key_begin, key_end in zip(queries[:-1], queries[1:], keys[:-1], keys[1:], strict=True):
        position = torch.arange(key_end - key_begin - (end - begin), key_end - key_begin)[:, None]
        distance = position - torch.arange(key_end - key_begin)[None]
        seen = distance >= 0 if window[0] < 0 else (distance >= 0) & (distance <= window[0])
        pieces = (query[begin:end], key[key_begin:key_end], value[key_begin:key_end])
        query_S, key_S, value_S = (piece.transpose(0, 1)[None] for piece in pieces)
        options: Any = {"attn_mask": seen, "scale": scale, "enable_gqa": query.shape[1] != key.shape[1]}
        outputs.append(scaled_dot_product_attention(query_S, key_S, value_S, **options)[0].transpose(0, 1))
    return torch.cat(outputs)


def varlen_2_11(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: object = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """The signature of torch 2.11, where grouped heads are found without being told."""
    assert (max_q, max_k) == (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max()))
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert window_size[1] == 0, "causal"
    return ragged(query, key, value, cu_seq_q, cu_seq_k, scale, window_size)


def varlen_2_13(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: object = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
    num_splits: int | None = None,
) -> Tensor:
    """The signature of torch 2.13, which refuses grouped heads unless it is told of them."""
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("Try setting enable_gqa=True for GQA.")
    return varlen_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
) -> tuple[Tensor, Tensor]:
    """The signature of the packages of flash attention 3, some of which return the log-sum-exp too."""
    assert causal
    return ragged(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, window_size), torch.zeros(())


def flash_attn_varlen_func_4(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    qv: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int | None, int | None] = (None, None),
) -> Tensor:
    """The signature of flash attention 4: another fourth argument, and another word for no window, of which -1 is none."""
    assert causal
    assert qv is None
    assert cu_seqlens_q is not None
    assert cu_seqlens_k is not None
    left, right = window_size
    assert left is None or left >= 0
    return ragged(q, k, v, cu_seqlens_q, cu_seqlens_k, softmax_scale, (-1 if left is None else left, right or 0))


FUNCTIONS: dict[str, Callable[[], flash.Attend]] = {
    "torch 2.11": lambda: flash.by_varlen(varlen_2_11),
    "torch 2.13": lambda: flash.by_varlen(varlen_2_13),
    "flash attention 3": lambda: flash.by_package(flash_attn_varlen_func),
    "flash attention 4": lambda: flash.by_package(flash_attn_varlen_func_4, unlimited=None),
}


@pytest.fixture(params=FUNCTIONS)
def on_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[flash.Row]:
    """Rows go to a flash attention that computes on the CPU in float64; the list fills with those that came there."""
    attend, came = FUNCTIONS[request.param](), []

    def counted(query: Tensor, key: Tensor, value: Tensor, row: flash.Row, scaling: float, window: int | None) -> Tensor:
        came.append(row)
        return attend(query, key, value, row, scaling, window)

    monkeypatch.setattr(attention, "FLASH_DEVICE", "cpu")
    monkeypatch.setattr(attention, "HALF", (torch.float64,))
    monkeypatch.setattr(flash, "chosen", lambda device: counted)
    return came


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize(("key_heads", "size", "value_size"), [(4, 8, 8), (1, 8, 8), (2, 20, 20), (4, 24, 16), (4, 12, 20)])
def test_a_row_equals_dense_attention(
    window: int | None, key_heads: int, size: int, value_size: int, on_cpu: list[flash.Row]
) -> None:
    """Prefixes, windows, grouped heads, heads that are no multiple of 8, and values of another size (latent attention)."""
    generator = torch.Generator().manual_seed(1)

    def random(heads: int, size: int) -> Tensor:
        return torch.randn(1, heads, BATCH.n_tokens, size, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = (random(4, size), random(key_heads, size), random(key_heads, value_size))
    for scaling in (None, 1.3):
        found, _ = segment_attention(nn.Identity(), *inputs, None, layout(BATCH), scaling=scaling, sliding_window=window)
        expected = dense(*inputs, visible(BATCH, window), scaling or size**-0.5)
        assert found.shape == (1, BATCH.n_tokens, 4, value_size)
        assert found.is_contiguous()
        assert (found - expected).abs().max() < 1e-12
        upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
        grads = torch.autograd.grad((found * upstream).sum(), inputs)
        for got, want in zip(grads, torch.autograd.grad((expected * upstream).sum(), inputs), strict=True):
            assert (got - want).abs().max() < 1e-12
    assert len(on_cpu) == 2


def test_documents_without_a_shared_prompt_need_no_copy_of_their_keys(on_cpu: list[flash.Row]) -> None:
    batch = pack_row([make_group(0, 5, [4]), make_group(1, 3, [6])])
    query = torch.randn(1, 2, batch.n_tokens, 8, dtype=torch.float64)
    found, _ = segment_attention(nn.Identity(), query, query, query, None, layout(batch))
    assert (found - dense(query, query, query, visible(batch, None), 8**-0.5)).abs().max() < 1e-12
    assert len(on_cpu) == 1


@pytest.mark.parametrize(
    "options", [{"softcap": 2.0}, {"s_aux": torch.zeros(2, dtype=torch.float64)}, {"size": 264}, {"dtype": torch.float32}]
)
def test_what_has_no_kernel_goes_segment_by_segment(options: dict[str, Any], on_cpu: list[flash.Row]) -> None:
    options = dict(options)
    size, dtype = options.pop("size", 8), options.pop("dtype", torch.float64)
    query = torch.randn(1, 2, BATCH.n_tokens, size, dtype=dtype)
    found, _ = segment_attention(nn.Identity(), query, query, query, None, layout(BATCH), **options)
    sinks = options.pop("s_aux", None)
    expected = dense(query, query, query, visible(BATCH, None), size**-0.5, sinks=sinks, **options)
    assert (found - expected).abs().max() < 1e-4
    assert on_cpu == []


def test_promoted_queries_and_keys_come_back_to_the_dtype_of_the_values(on_cpu: list[flash.Row]) -> None:
    """Rotary embeddings of Llama, Qwen3 and OLMoE return float32 where their cosines are float32; the row then took no kernel."""
    value = torch.randn(1, 2, BATCH.n_tokens, 8, dtype=torch.float64)
    found, _ = segment_attention(nn.Identity(), value.float(), value.float(), value, None, layout(BATCH))
    assert found.dtype == torch.float64
    assert len(on_cpu) == 1


def test_nothing_changes_on_a_cpu() -> None:
    query = torch.randn(1, 2, BATCH.n_tokens, 8, dtype=torch.bfloat16)
    found, _ = segment_attention(nn.Identity(), query, query, query, None, layout(BATCH))
    assert found.dtype == torch.bfloat16
    with pytest.raises(RuntimeError, match="dtype"):
        segment_attention(nn.Identity(), query.float(), query.float(), query, None, layout(BATCH))


def test_a_gpu_without_a_right_kernel_goes_segment_by_segment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FLASH_DEVICE", "cpu")
    monkeypatch.setattr(flash, "chosen", lambda device: None)
    query = torch.randn(1, 2, BATCH.n_tokens, 8, dtype=torch.bfloat16)
    found, _ = segment_attention(nn.Identity(), query, query, query, None, layout(BATCH))
    wide = query.float()
    expected = dense(wide, wide, wide, visible(BATCH, None), 8**-0.5)
    assert (found.float() - expected).abs().max() < 0.05


# Which kernel is chosen.


def without_windows(query: Tensor, key: Tensor, value: Tensor, row: flash.Row, scaling: float, window: int | None) -> Tensor:
    """A kernel that takes no notice of the window."""
    return flash.by_varlen(varlen_2_13)(query, key, value, row, scaling, None)


def with_half_a_gradient(query: Tensor, *others: Any) -> Any:
    """A kernel with the right values and half the gradient of its queries."""
    return flash.by_varlen(varlen_2_13)((query + query.detach()) / 2, *others)


def at_the_other_end(query: Tensor, key: Tensor, value: Tensor, row: flash.Row, scaling: float, window: int | None) -> Tensor:
    """A kernel that aligns queries with the first keys of a segment, as flash attention did before 2.1."""
    shifted = flash.Row(row.queries, row.queries, row.longest_queries, row.longest_queries)
    return flash.by_varlen(varlen_2_13)(query, key[: len(query)], value[: len(query)], shifted, scaling, window)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_right_kernel_passes(name: str) -> None:
    with torch.no_grad():
        assert flash.fault_of(FUNCTIONS[name](), CPU) == ""


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [(without_windows, "a window of 20"), (with_half_a_gradient, "queries are off"), (at_the_other_end, "values are off")],
)
def test_a_wrong_kernel_is_found_out(kernel: Any, reason: str) -> None:
    assert reason in flash.fault_of(kernel, CPU)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The CPU, taken for an H100."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an H100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(flash, "torch_varlen", lambda: varlen_2_13)
    flash.chosen.cache_clear()
    yield CPU
    flash.chosen.cache_clear()


def offer(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(flash, "find_spec", lambda name: name if name in packages else None)


def test_the_newest_that_is_installed_is_taken_and_named(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    activated: list[str] = []
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", activated.append)
    offer(monkeypatch, "flash_attn_interface", "flash_attn", "flash_attn.cute", "kernels")
    with caplog.at_level(logging.INFO, "tulu"):
        assert flash.chosen(gpu) is flash.chosen(gpu)
    assert activated == ["FA3"]
    assert caplog.messages == ["attention on an H100: flash attention 3"]


def test_a_package_that_fails_gives_way_to_the_next(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The third version does not load, that of the kernels package is wrong: torch's own is put back."""

    def activate(name: str) -> None:
        raise RuntimeError("Module 'flash_attn_interface' does not expose FA3 kernels")

    wrong = SimpleNamespace(flash_attn_varlen_func=lambda *args, **kwargs: args[0] * 0)
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", activate)
    monkeypatch.setitem(sys.modules, "kernels", SimpleNamespace(get_kernel=lambda name, version: wrong))
    offer(monkeypatch, "flash_attn_interface", "kernels")
    with caplog.at_level(logging.INFO, "tulu"):
        assert flash.chosen(gpu) is not None
    first, second, last = caplog.messages
    assert "does not expose FA3 kernels" in first
    assert "flash attention 3 of kernels-community/flash-attn3 is not used" in second
    assert last == "attention on an H100: flash attention 2 of torch"


def test_a_torch_whose_own_is_wrong_has_none(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch 2.11 hands rows to cuDNN on a Blackwell card, which refuses a window."""

    def refuses(*args: Any, window_size: tuple[int, int], **options: Any) -> Tensor:
        raise RuntimeError("cuDNN backend does not support window attention.")

    offer(monkeypatch)
    monkeypatch.setattr(flash, "torch_varlen", lambda: refuses)
    assert flash.chosen(gpu) is None
    assert "one call for each segment" in caplog.messages[-1]


def test_torchs_registry_of_flash_attention_is_there() -> None:
    assert {"FA3", "FA4"} <= set(torch.nn.attention.list_flash_attention_impls())
    assert torch.nn.attention.current_flash_attention_impl() is None
    flash.restore()
