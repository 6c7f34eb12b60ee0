"""Packed rows: where everything lies, and that packing neither loses nor repeats a token."""

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.samples import make_group
from tulu.losses import mean_by_owner, sum_by_owner
from tulu.model.batch import Batch, Segment, pack, pack_row, padded_rows
from tulu.types import Completion, Group

PAIR = Group([5, 6, 7], (Completion([8, 9], [True, True]), Completion([10, 11, 12], [False, True, True])))


def test_a_pair_on_paper() -> None:
    batch = pack_row([PAIR])
    # prompt 5 6 7 | 8 9 | 10 11 12: the second completion's positions restart behind the prompt.
    assert batch.tokens_T.tolist() == [5, 6, 7, 8, 9, 10, 11, 12]
    assert batch.positions_T.tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert batch.completions == (Segment(3, 5, 0, 3), Segment(5, 8, 0, 3))
    # 8 is predicted at the prompt's last token, 9 at 8; 10 is not trained; 11 at 10, 12 at 11.
    assert batch.read_N.tolist() == [2, 3, 5, 6]
    assert batch.target_N.tolist() == [8, 9, 11, 12]
    assert batch.owner_N.tolist() == [0, 0, 1, 1]
    assert batch.last_C.tolist() == [4, 7]
    assert batch.lengths_C.tolist() == [2.0, 2.0]


def test_a_second_group_starts_anew() -> None:
    batch = pack_row([PAIR, Group([1], (Completion([2], [True]),))])
    assert batch.completions[2] == Segment(9, 10, 8, 9)
    assert batch.positions_T.tolist()[8:] == [0, 1]
    assert (batch.read_N[-1].item(), batch.target_N[-1].item(), batch.owner_N[-1].item()) == (8, 2, 2)


def test_without_a_prompt_nothing_predicts_the_first_token() -> None:
    batch = pack_row([PAIR, Group([], (Completion([1, 2, 3], [True, True, True]),))])
    assert batch.target_N.tolist()[4:] == [2, 3]
    assert batch.read_N.tolist()[4:] == [8, 9]


def test_an_untrained_completion_keeps_its_place() -> None:
    batch = pack_row([Group([1, 2], (Completion([3], [False]), Completion([4], [True])))])
    assert batch.n_completions == 2
    assert batch.lengths_C.tolist() == [0.0, 1.0]
    logps_N = torch.tensor([-2.0])
    assert mean_by_owner(logps_N, batch.owner_N, 2).tolist() == [0.0, -2.0]


@pytest.mark.parametrize(("trained", "mean"), [([True] * 3, -2.0), ([True, True, False], -1.5), ([False] * 3, 0.0)])
def test_mean_log_probs_of_losses_md_2(trained: list[bool], mean: float) -> None:
    # losses.md §2: per-token -1, -2, -3; the mean is over trained tokens and 0, never NaN, where there are none.
    batch = pack_row([Group([0], (Completion([1, 2, 3], trained),))])
    logps_N = torch.tensor([-1.0, -2.0, -3.0])[torch.tensor(trained)]
    assert mean_by_owner(logps_N, batch.owner_N, 1).item() == mean
    assert sum_by_owner(logps_N, batch.owner_N, 1).item() == pytest.approx(mean * sum(trained))


def test_numbers_of_groups_completions_and_tokens_reach_what_they_belong_to() -> None:
    first, second = Completion([3, 4], [False, True]), Completion([5], [True])
    batch = pack_row([Group([], (Completion([6, 7], [True, True]),)), Group([1, 2], (first, second))])
    assert batch.index_C == ((0, 0), (1, 0), (1, 1))
    assert batch.of_groups([0.5, 0.25]).tolist() == [0.5, 0.25, 0.25]
    assert batch.of_completions([[2.0], [1.5, -1.0]]).tolist() == [2.0, 1.5, -1.0]
    # Without a prompt the first token, 6, is not predicted; of the second group 3 is not trained.
    assert batch.of_tokens([[[-9.0, -7.0]], [[-0.5, -0.25], [-0.125]]]).tolist() == [-7.0, -0.25, -0.125]
    with pytest.raises(IndexError):
        batch.of_completions([[2.0], [1.5]])


@dataclass(frozen=True, kw_only=True)
class ScoredBatch(Batch):
    """A batch with a number per completion and per token, as a stage would declare it."""

    score_C: Tensor
    bonus_N: Tensor | None = None


def test_a_stage_declares_what_it_needs_of_a_batch() -> None:
    row = pack_row([PAIR])
    batch = ScoredBatch(**vars(row), score_C=row.of_completions([[1.0, 2.0]])).to(torch.device("cpu"))
    assert isinstance(batch, ScoredBatch)
    assert batch.score_C.tolist() == [1.0, 2.0]
    assert batch.bonus_N is None
    with pytest.raises(TypeError, match="score_C"):
        ScoredBatch(**vars(row))
    with pytest.raises(ValueError, match=r"ScoredBatch\.score_C has 3 entries where 2 are needed"):
        ScoredBatch(**vars(row), score_C=torch.zeros(3))
    with pytest.raises(ValueError, match=r"ScoredBatch\.bonus_N has 2 entries where 4 are needed"):
        ScoredBatch(**vars(row), score_C=torch.zeros(2), bonus_N=torch.zeros(2))


def test_a_batch_moves_to_a_device_whole() -> None:
    row = pack_row([PAIR])
    batch = ScoredBatch(**vars(row), score_C=torch.zeros(2), bonus_N=torch.zeros(4)).to(torch.device("meta"))
    assert {value.device.type for value in vars(batch).values() if isinstance(value, Tensor)} == {"meta"}


GROUPS = [make_group(seed, 3 + seed % 7, [4 + seed % 9, 11, 2][: 1 + seed % 3]) for seed in range(40)]


@pytest.mark.parametrize("row_tokens", [10, 40, 100, 10_000])
@pytest.mark.parametrize("most", [1, 3, None])
@pytest.mark.parametrize("split", [True, False])
def test_every_completion_is_packed_once_within_the_budget(row_tokens: int, most: int | None, split: bool) -> None:
    batches = pack(GROUPS, row_tokens, most, split=split)
    places = Counter(place for batch in batches for place in batch.index_C)
    assert places == Counter((g, c) for g, group in enumerate(GROUPS) for c in range(len(group.completions)))
    assert sum(batch.n_trained for batch in batches) == sum(c.n_trained for group in GROUPS for c in group.completions)
    for batch in batches:
        prompts = len({segment.prefix_start for segment in batch.completions})
        # Too long for any row means a row of its own: one completion, or without splitting one group.
        alone = batch.n_completions == 1 if split else prompts == 1
        assert batch.n_tokens <= row_tokens or alone
        assert batch.n_completions <= (most or 10_000) or (not split and prompts == 1)


def test_a_group_that_is_split_repeats_its_prompt() -> None:
    group = make_group(1, 10, [10] * 16)
    batches = pack([group], row_tokens=35)
    assert [batch.n_completions for batch in batches] == [2] * 8
    assert all(batch.tokens_T[:10].tolist() == group.prompt for batch in batches)
    (whole,) = pack([group], row_tokens=35, split=False)
    assert whole.n_completions == 16
    assert whole.n_tokens == 170


def test_packing_saves_the_shared_prompt_and_all_padding() -> None:
    batches = pack([make_group(seed, 20, [5, 9]) for seed in range(6)], row_tokens=34)
    assert [batch.n_tokens for batch in batches] == [34] * 6


def test_best_fit_fills_rows() -> None:
    sizes = [6, 5, 5, 4]
    batches = pack([make_group(seed, 1, [size - 1]) for seed, size in enumerate(sizes)], row_tokens=10)
    assert sorted(batch.n_tokens for batch in batches) == [10, 10]


def test_padded_rows_read_the_same_tokens() -> None:
    batch = pack_row([PAIR, Group([1], (Completion([2], [True]),))])
    rows = padded_rows(batch)
    assert rows.tokens_CL.tolist() == [[5, 6, 7, 8, 9, 0], [5, 6, 7, 10, 11, 12], [1, 2, 0, 0, 0, 0]]
    assert rows.mask_CL.sum(1).tolist() == [5, 6, 2]
    # The token that follows a position that is read is the target.
    assert rows.tokens_CL.flatten()[rows.read_N + 1].tolist() == batch.target_N.tolist()
    assert rows.tokens_CL.flatten()[rows.last_C].tolist() == [9, 12, 2]


def test_nothing_to_pack() -> None:
    assert pack([], 100) == []
