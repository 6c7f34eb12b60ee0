"""Segment attention against dense attention over an explicit mask: prefixes, grouped queries, sliding windows."""

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


def dense(query: Tensor, key: Tensor, value: Tensor, seen: Tensor, scaling: float) -> Tensor:
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~seen, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 1, 3, 6, 100])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_equals_dense_attention(window: int | None, key_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)

    def random(heads: int) -> Tensor:
        return torch.randn(1, heads, BATCH.n_tokens, 8, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = (random(4), random(key_heads), random(key_heads))
    found, _ = segment_attention(nn.Identity(), *inputs, None, layout(BATCH), scaling=0.3, sliding_window=window)
    expected = dense(*inputs, visible(BATCH, window), 0.3)
    assert found.shape == (1, BATCH.n_tokens, 4, 8)
    assert (found - expected).abs().max() < 1e-12
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    grads = torch.autograd.grad((found * upstream).sum(), inputs)
    for got, want in zip(grads, torch.autograd.grad((expected * upstream).sum(), inputs), strict=True):
        assert (got - want).abs().max() < 1e-12


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


def test_the_layout_of_variable_length_attention() -> None:
    keys, queries, cumulative_keys, longest_query, longest_keys = layout(pack_row([make_group(0, 2, [1, 2])])).varlen
    assert keys.tolist() == [0, 1, 2, 0, 1, 3, 4]
    assert queries.tolist() == [0, 3, 5]
    assert cumulative_keys.tolist() == [0, 3, 7]
    assert (longest_query, longest_keys) == (3, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="variable-length attention runs on CUDA")
@pytest.mark.parametrize("window", [None, 3, 6])
@pytest.mark.parametrize("key_heads", [1, 4])
def test_variable_length_attention_equals_dense(window: int | None, key_heads: int) -> None:
    batch = BATCH.to(torch.device("cuda"))

    def random(heads: int) -> Tensor:
        return torch.randn(1, heads, batch.n_tokens, 64, device="cuda", dtype=torch.bfloat16)

    query, key, value = random(4), random(key_heads), random(key_heads)
    found, _ = segment_attention(nn.Identity(), query, key, value, None, layout(batch), scaling=0.125, sliding_window=window)
    expected = dense(query.float(), key.float(), value.float(), visible(BATCH, window).cuda(), 0.125)
    assert (found.float() - expected).abs().max() < 0.03
