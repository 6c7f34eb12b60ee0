"""Segment attention against dense attention over an explicit mask: prefixes, grouped queries, sliding windows."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.samples import make_group
from tulu.model.attention import layout, segment_attention
from tulu.model.batch import Batch, Segment, pack_row

BATCH = pack_row([make_group(0, 5, [4, 7, 1]), make_group(1, 0, [6]), make_group(2, 8, [3])])


def visible(batch: Batch, window: int | None) -> Tensor:
    """(T, T) which key each query may see, from the definition, position by position."""
    seen = torch.zeros(batch.n_tokens, batch.n_tokens, dtype=torch.bool)
    positions = batch.positions_T.tolist()
    for segment in batch.completions:
        prompt = list(range(segment.prefix_start, segment.prefix_end))
        for rows, keys in (
            (prompt, prompt),
            (list(range(segment.start, segment.end)), [*prompt, *range(segment.start, segment.end)]),
        ):
            for query in rows:
                for key in keys:
                    distance = positions[query] - positions[key]
                    seen[query, key] |= distance >= 0 and (window is None or distance < window)
    return seen


def dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor,
    scaling: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = query @ key.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.exp() * seen
    total = weights.sum(-1, keepdim=True) + (0 if sinks is None else sinks.exp().reshape(1, -1, 1, 1))
    return (weights / total @ value).transpose(1, 2)


@pytest.mark.parametrize(("softcap", "with_sinks"), [(None, False), (2.0, False), (None, True), (2.0, True)])
@pytest.mark.parametrize("window", [None, 1, 3, 6, 100])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_equals_dense_attention(window: int | None, key_heads: int, softcap: float | None, with_sinks: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(heads: int) -> Tensor:
        return torch.randn(1, heads, BATCH.n_tokens, 8, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = (random(4), random(key_heads), random(key_heads))
    sinks = torch.tensor([-1.0, 0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True) if with_sinks else None
    options: Any = {"scaling": 1.3, "softcap": softcap}
    found, _ = segment_attention(nn.Identity(), *inputs, None, layout(BATCH), sliding_window=window, s_aux=sinks, **options)
    expected = dense(*inputs, visible(BATCH, window), **options, sinks=sinks)
    leaves = [*inputs] if sinks is None else [*inputs, sinks]
    assert found.shape == (1, BATCH.n_tokens, 4, 8)
    assert (found - expected).abs().max() < 1e-12
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((found * upstream).sum(), leaves)
    for got, want in zip(grads, torch.autograd.grad((expected * upstream).sum(), leaves), strict=True):
        assert (got - want).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"block_indices": [1]}, "block_indices"),
        ({"is_causal": False}, "not causal"),
        ({"attention_mask": torch.zeros(1)}, "mask of its own"),
    ],
)
def test_what_would_be_left_out_is_an_error(options: dict[str, Any], reason: str) -> None:
    zeros = torch.zeros(1, 2, BATCH.n_tokens, 4)
    mask = options.pop("attention_mask", None)
    with pytest.raises(NotImplementedError, match=reason):
        segment_attention(nn.Identity(), zeros, zeros, zeros, mask, layout(BATCH), **options)


def test_what_is_not_asked_for_is_no_error() -> None:
    zeros = torch.zeros(1, 2, BATCH.n_tokens, 4)
    nothing: Any = {"position_bias": None, "output_attentions": False, "is_causal": True, "position_ids": BATCH.positions_T[None]}
    segment_attention(nn.Identity(), zeros, zeros, zeros, None, layout(BATCH), **nothing)


def test_a_completion_behind_its_prompt_is_one_segment() -> None:
    # 5 prompt tokens with completions of 4, 7 and 1: the first goes on where the prompt ends, the others look back at it.
    assert layout(pack_row([make_group(0, 5, [4, 7, 1])])).segments == (
        Segment(0, 9, 0, 0),
        Segment(9, 16, 0, 5),
        Segment(16, 17, 0, 5),
    )


def test_every_token_is_a_query_once() -> None:
    covered = [position for segment in layout(BATCH).segments for position in range(segment.start, segment.end)]
    assert covered == list(range(BATCH.n_tokens))


def test_masks_are_made_once_for_all_layers_and_equal_segments() -> None:
    shared = layout(pack_row([make_group(0, 5, [4, 7, 7])]))
    first, second, third = shared.segments
    assert shared.mask(first, None, torch.float32) is None, "plain causal attention needs no mask"
    assert shared.mask(second, None, torch.float32) is shared.mask(third, None, torch.float32)
    assert shared.mask(second, 3, torch.float32) is not shared.mask(second, None, torch.float32)


def test_a_window_counts_the_query_itself() -> None:
    # transformers: key is seen while query - key < window.
    mask = layout(pack_row([make_group(0, 2, [1, 2])])).mask(Segment(3, 5, 0, 2), 2, torch.float32)
    assert mask is not None
    assert (mask == 0).tolist() == [[False, True, True, False], [False, False, True, True]]


def test_the_row_as_flash_attention_takes_it() -> None:
    positions, row = layout(pack_row([make_group(0, 2, [1, 2])])).row
    assert positions is not None
    assert positions.tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert row.queries.tolist() == [0, 3, 5]
    assert row.keys.tolist() == [0, 3, 7]
    assert (row.longest_queries, row.longest_keys) == (3, 4)


def test_keys_of_whole_documents_are_the_row_itself() -> None:
    positions, row = layout(pack_row([make_group(0, 2, [3]), make_group(1, 4, [1])])).row
    assert positions is None
    assert row.queries.tolist() == row.keys.tolist() == [0, 5, 10]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention runs on CUDA")
@pytest.mark.parametrize("window", [None, 3, 6])
@pytest.mark.parametrize("key_heads", [1, 4])
def test_flash_attention_equals_dense(window: int | None, key_heads: int) -> None:
    batch = BATCH.to(torch.device("cuda", 0))

    def random(heads: int) -> Tensor:
        return torch.randn(1, heads, batch.n_tokens, 64, device="cuda", dtype=torch.bfloat16)

    query, key, value = random(4), random(key_heads), random(key_heads)
    found, _ = segment_attention(nn.Identity(), query, key, value, None, layout(batch), scaling=0.125, sliding_window=window)
    expected = dense(query.float(), key.float(), value.float(), visible(BATCH, window).cuda(), 0.125)
    assert (found.float() - expected).abs().max() < 0.03
