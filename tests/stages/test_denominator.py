"""Means over micro-batches by hand, and that neither packing nor the number of processes changes them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch

from tests.samples import make_stage
from tulu.config.schema import Rlvr
from tulu.data.mixing import order
from tulu.model.batch import pack
from tulu.model.parallel import Parallel
from tulu.rollout.batches import RolloutBatch
from tulu.stages.denominator import has_end, normaliser, token_weights, value_weights, weigh
from tulu.stages.ppo import PpoBatch, whitened
from tulu.types import Completion, Group

SIZES = {"prompts": 4, "samples": 1, "batch": 4, "max_prompt": 8, "max_tokens": 6, "advantage": "gae", "refill": False}


def micro_mean(**changes: Any) -> Rlvr:
    fields = {**SIZES, "denominator": "micro_mean", "loss_micro_batch": 2, "value": {"reward_at": "after"}, **changes}
    stage: Rlvr = make_stage(Rlvr, **fields)
    return stage


def rows_of(lengths: Sequence[int], row_tokens: int = 1000, places: Sequence[int] | None = None) -> list[RolloutBatch]:
    """One problem of a single prompt token for every length of a completion; its advantage is its length."""
    places = places or range(len(lengths))
    groups = [Group([9], (Completion([5] * n, [True] * n),), f"row:{n}") for n in lengths]
    return [
        RolloutBatch(
            **vars(batch),
            advantage_C=batch.of_groups([float(n) for n in lengths]),
            sampler_logps_N=torch.zeros(batch.n_trained),
            drawn_C=tuple((places[group], place) for group, place in batch.index_C),
        )
        for batch in pack(groups, row_tokens)
    ]


SHARES = ([2, 5], [0, 1, 3, 4])
"""Which of six problems each of two processes has: not every second one, as where others in between were set aside."""


class Threads:
    """As many processes as there are threads, which meet wherever they exchange something."""

    def __init__(self, world: int) -> None:
        self.items: list[Any] = [None] * world
        self.barrier = threading.Barrier(world)

    def run(self, work: Callable[[Any, int], Any]) -> list[Any]:
        world = len(self.items)
        results: list[Any] = [None] * world

        def one(rank: int) -> None:
            results[rank] = work(Member(self, rank), rank)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        return results


class Member:
    """What the code under test asks of Parallel, for one of the threads."""

    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads, self.rank = threads, rank

    def exchange(self, item: Any) -> list[Any]:
        self.threads.items[self.rank] = item
        self.threads.barrier.wait()
        everyone = list(self.threads.items)
        self.threads.barrier.wait()
        return everyone


def weights_of(rows: Sequence[RolloutBatch], stage: Rlvr) -> dict[int, tuple[float, float, float]]:
    """By the length of a completion: its tokens' weights in both losses, and its share of a micro-batch."""
    found = {}
    for row in rows:
        policy_C, value_C = token_weights(row, stage), value_weights(row, stage)
        assert policy_C is not None
        assert value_C is not None
        assert row.share_C is not None
        for length, *numbers in zip(
            row.lengths_C.tolist(), policy_C.tolist(), value_C.tolist(), row.share_C.tolist(), strict=True
        ):
            found[int(length)] = cast(tuple[float, float, float], tuple(numbers))
    return found


def test_a_micro_batch_counts_once_whatever_its_tokens() -> None:
    # The worked value of losses.md §1, as the losses of completions: 4 tokens of 1 each, and 1 token of 3.
    stage = micro_mean(prompts=2, batch=2, loss_micro_batch=1)
    rows = weigh(rows_of([4, 1]), stage, Parallel(stage), update=0)
    weights = weights_of(rows, stage)
    total = 4 * 1.0 * weights[4][0] + 1 * 3.0 * weights[1][0]
    assert total / sum(normaliser(stage)(row) for row in rows) == pytest.approx(2.0)
    # Each has one state more where its value is trained.
    assert [weights[n][1] for n in (4, 1)] == pytest.approx([1 / 5, 1 / 2])


def test_micro_batches_are_drawn_anew_for_every_update() -> None:
    stage = micro_mean()
    lengths = [1, 2, 3, 5]
    seen = set()
    for update in range(8):
        shuffled = [lengths[place] for place in order(4, stage.seed, update)]
        pairs = [shuffled[:2], shuffled[2:]]
        weights = weights_of(weigh(rows_of(lengths), stage, Parallel(stage), update), stage)
        for pair in pairs:
            for length in pair:
                assert weights[length] == pytest.approx((1 / sum(pair), 1 / (sum(pair) + 2), 0.5))
        seen.add(tuple(sorted(map(tuple, map(sorted, pairs)))))
    assert len(seen) == 3, "four completions make three different pairs of pairs"


def test_a_completion_of_max_tokens_has_no_state_behind_it() -> None:
    stage = micro_mean(prompts=2, batch=2)
    [row] = rows_of([6, 2])
    ended = dict(zip(row.lengths_C.tolist(), has_end(row, stage), strict=True))
    assert ended == {6: False, 2: True}
    weights = weights_of(weigh([row], stage, Parallel(stage), 0), stage)
    assert weights[6] == weights[2] == pytest.approx((1 / 8, 1 / 9, 0.5))
    last = micro_mean(prompts=2, batch=2, value={})
    assert weights_of(weigh([row], last, Parallel(last), 0), last)[6][1] == pytest.approx(1 / 8)


def test_neither_packing_nor_the_number_of_processes_changes_a_weight() -> None:
    stage = micro_mean(prompts=6, batch=6, loss_micro_batch=3)
    lengths = [1, 2, 3, 4, 5, 6]
    alone = weights_of(weigh(rows_of(lengths), stage, Parallel(stage), 5), stage)
    narrow = weights_of(weigh(rows_of(lengths, row_tokens=7), stage, Parallel(stage), 5), stage)

    def one(parallel: Any, rank: int) -> Any:
        own = SHARES[rank]
        return weights_of(weigh(rows_of([lengths[place] for place in own], places=own), stage, parallel, 5), stage)

    first, second = Threads(2).run(one)
    assert alone == narrow == {**first, **second}
    assert (len(first), len(second)) == (2, 4)


def test_other_denominators_need_no_weights() -> None:
    stage = micro_mean(denominator="token")
    rows = rows_of([1, 2])
    assert weigh(rows, stage, Parallel(stage), 0) is rows
    assert token_weights(rows[0], stage) is None
    with pytest.raises(ValueError, match="needs each completion's share"):
        normaliser(micro_mean())(rows[0])


def test_a_completion_without_a_trained_token_weighs_nothing() -> None:
    stage = micro_mean(prompts=2, batch=2, loss_micro_batch=1, value={})
    groups = [Group([9], (Completion([5] * 2, [place == 1] * 2),), f"row:{place}") for place in range(2)]
    [row] = pack(groups, 1000)
    more: dict[str, Any] = {"advantage_C": torch.ones(2), "sampler_logps_N": torch.zeros(2), "drawn_C": row.index_C}
    [weighed] = weigh([RolloutBatch(**vars(row), **more)], stage, Parallel(stage), 0)
    assert weighed.weight_C is not None
    found = {place: float(weight) for (place, _), weight in zip(row.index_C, weighed.weight_C, strict=True)}
    assert found[1] == 0.5
    assert normaliser(stage)(weighed) == 2


def test_the_places_of_completions_are_never_made_up() -> None:
    [row] = rows_of([1, 2])
    with pytest.raises(ValueError, match="needs to know the place of each"):
        weigh([replace(row, drawn_C=None)], micro_mean(), Parallel(micro_mean()), 0)


def with_numbers(rows: Sequence[RolloutBatch]) -> list[PpoBatch]:
    """Every token's advantage is its completion's, plus its place."""
    return [
        PpoBatch(
            **vars(row),
            advantage_N=row.advantage_C[row.owner_N] + row.place_N,
            return_N=torch.zeros(row.n_trained),
        )
        for row in rows
    ]


def by_length(rows: Sequence[PpoBatch]) -> dict[int, list[float]]:
    return {
        int(length): row.advantage_N[row.owner_N == place].tolist()
        for row in rows
        for place, length in enumerate(row.lengths_C.tolist())
    }


def test_advantages_are_whitened_over_so_many_completions() -> None:
    stage = micro_mean()
    [rows] = whitened([with_numbers(rows_of([1, 2, 3, 4]))], 2, Parallel(stage))
    found = by_length(rows)
    # Completions of 1 and 2 tokens have the advantages 1 and 2, 3: mean 2, variance with N - 1 is 1.
    assert found[1] == pytest.approx([-1.0])
    assert found[2] == pytest.approx([0.0, 1.0])
    # Those of 3 and 4 have 3, 4, 5 and 4, 5, 6, 7: mean 34/7, squares (1 + 2·2 + ...) by torch.
    rest = torch.tensor([3.0, 4, 5, 4, 5, 6, 7])
    assert [*found[3], *found[4]] == pytest.approx(((rest - rest.mean()) / rest.std()).tolist(), abs=1e-6)


def test_processes_whiten_as_one_does() -> None:
    stage, lengths = micro_mean(), [1, 2, 3, 4]
    [alone] = whitened([with_numbers(rows_of(lengths))], 2, Parallel(stage))

    def one(parallel: Any, rank: int) -> Any:
        own = [place for place in SHARES[rank] if place < len(lengths)]
        [rows] = whitened([with_numbers(rows_of([lengths[place] for place in own], places=own))], 2, parallel)
        return by_length(rows)

    first, second = Threads(2).run(one)
    for length, advantages in by_length(alone).items():
        assert {**first, **second}[length] == pytest.approx(advantages)


def test_a_step_without_completions_has_nothing_to_whiten() -> None:
    assert whitened([[]], 2, Parallel(micro_mean())) == [[]]
