"""Rotary factors that depend on the length: every document has its own, whatever stands beside it, and sampling is as ever."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.architectures import logps, make, plain_logps
from tests.samples import make_group
from tulu.model import trunk as trunk_module
from tulu.model.batch import Batch, pack_row, without_sharing
from tulu.model.rope import RopeByLength
from tulu.model.trunk import Rows, Trunk
from tulu.types import Group

SHORT, EDGE, LONG = make_group(1, 9, [7, 5]), make_group(2, 9, [15, 14]), make_group(3, 20, [30, 41])
"""Documents of 16 and 14; of 24, the last length with the factors of short ones, and 23; of 50 and 61 tokens."""
ACROSS = make_group(4, 12, [3, 12, 13, 40])
"""Completions of one prompt on both sides of 24: documents of 15, 24, 25 and 52 tokens."""
FEATURES = ["LongRoPE", "dynamic NTK"]


def read_as(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Trunk]:
    def load(model: Any) -> Trunk:
        if rows != "packed":
            monkeypatch.setattr(trunk_module.Trunk, "_documents_of_row", lambda self, batch: [])
        trunk = Trunk(model)
        trunk.adopt_segments()
        assert trunk.rows == rows
        return trunk

    return load


@torch.no_grad()
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("rows", ["packed", "padded"])
@pytest.mark.parametrize("groups", [[SHORT], [LONG], [SHORT, LONG], [LONG, EDGE, SHORT], [ACROSS], [ACROSS, LONG, EDGE]])
def test_a_neighbour_changes_nothing(feature: str, rows: Rows, groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = make(feature), pack_row(groups)
    trunk = read_as(rows, monkeypatch)(model)
    for _ in range(2):  # the second time, the longest document has been seen
        assert (logps(model, trunk, batch) - plain_logps(make(feature), batch)).abs().max() <= 1e-4


@torch.no_grad()
@pytest.mark.parametrize("feature", FEATURES)
def test_the_factors_matter(feature: str) -> None:
    """What is at stake: read in the wrong order, or beside a long document, a short one is off by tenths of a nat and more."""
    batch = pack_row([SHORT])
    model = make(feature)
    expected = plain_logps(model, batch)
    inner = model.base_model
    rows = torch.randint(0, 256, (2, 61), generator=torch.Generator().manual_seed(0))
    rows[0, :16] = torch.cat([batch.tokens_T[:9], batch.tokens_T[9:16]])
    hidden_TH = inner(input_ids=rows, use_cache=False).last_hidden_state[0]
    own = batch.owner_N == 0
    logits_NV = model.get_output_embeddings()(hidden_TH[batch.place_N[own] + 8])
    beside = torch.log_softmax(logits_NV, -1).gather(1, batch.target_N[own][:, None])[:, 0]
    assert (beside - expected[own]).abs().max() > 0.1


@torch.no_grad()
def test_dynamic_scaling_is_that_of_a_model_that_read_nothing_before() -> None:
    """The oracle of the other tests lets one model read every document; here each has a model of its own."""
    model = make("dynamic NTK")
    trunk = Trunk(model)
    trunk.adopt_segments()
    batch = pack_row([ACROSS])
    found = logps(model, trunk, batch)
    for number, segment in enumerate(batch.completions):
        tokens_T = torch.cat([batch.tokens_T[start:end] for start, end in segment.runs])
        hidden_TH = make("dynamic NTK").base_model(input_ids=tokens_T[None], use_cache=False).last_hidden_state[0]
        own = batch.owner_N == number
        logits_NV = model.get_output_embeddings()(hidden_TH[batch.place_N[own] + 11])
        expected = torch.log_softmax(logits_NV, -1).gather(1, batch.target_N[own][:, None])[:, 0]
        assert (found[own] - expected).abs().max() <= 1e-4


def test_which_documents_share_their_factors() -> None:
    long, dynamic = (RopeByLength(make(feature)) for feature in FEATURES)
    assert long.factors_of(1) == long.factors_of(24) != long.factors_of(25) == long.factors_of(64)
    assert dynamic.factors_of(1) == dynamic.factors_of(24)
    assert len({dynamic.factors_of(length) for length in (24, 25, 26, 64)}) == 4
    assert RopeByLength(make("YaRN")).factors_of(3) == RopeByLength(make("YaRN")).factors_of(300)


def test_a_prompt_is_repeated_only_where_its_completions_need_it() -> None:
    rope = RopeByLength(make("LongRoPE"))
    for kept in ([SHORT], [LONG], [SHORT, LONG], [make_group(5, 0, [3, 40])]):
        batch = pack_row(kept)
        assert rope.separated(batch) is batch
    batch = pack_row([ACROSS])
    assert rope.separated(batch).n_tokens == 15 + 24 + 25 + 52
    assert RopeByLength(make("a window")).separated(batch) is batch


def test_a_row_without_sharing_reads_the_same() -> None:
    batch = pack_row([make_group(0, 2, [1, 3]), make_group(1, 0, [2])])
    alone: Batch = without_sharing(batch)
    assert alone.positions_T.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1]
    assert [segment.runs for segment in alone.completions] == [((0, 2), (2, 3)), ((3, 5), (5, 8)), ((8, 8), (8, 10))]
    assert alone.last_C.tolist() == [2, 7, 9]
    assert torch.equal(alone.tokens_T[alone.last_C], batch.tokens_T[batch.last_C])

    def before(row: Batch) -> list[list[int]]:
        """Every document up to each token that it is read at."""
        found = []
        for read, owner in zip(row.read_N.tolist(), row.owner_N.tolist(), strict=True):
            prompt, own = row.completions[owner].runs
            found.append(
                [*row.tokens_T[slice(*prompt)], *row.tokens_T[own[0] : read + 1]]
                if read >= own[0]
                else [*row.tokens_T[prompt[0] : read + 1]]
            )
        return [[int(token) for token in tokens] for tokens in found]

    assert before(alone) == before(batch)
    assert torch.equal(alone.target_N, batch.target_N)


@torch.no_grad()
@pytest.mark.parametrize("feature", FEATURES)
def test_sampling_is_that_of_transformers(feature: str) -> None:
    """With a cache and across the threshold, before and after the trunk has read."""
    model, plain = make(feature), make(feature)
    trunk = Trunk(model)
    trunk.adopt_segments()
    trunk(pack_row([LONG, SHORT]))
    model.set_attn_implementation("sdpa")

    def sample(model: Any) -> Tensor:
        tokens: Tensor = model.generate(
            torch.arange(3, 23)[None], max_new_tokens=12, do_sample=False, return_dict_in_generate=True, output_logits=True
        ).logits
        return torch.stack(list(tokens))

    assert torch.equal(sample(model), sample(plain))
