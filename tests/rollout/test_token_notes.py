"""What is kept of single tokens."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.samples import make_stage
from tulu.config.schema import Rlvr
from tulu.rollout.batches import pack_rollouts
from tulu.rollout.records import keep_tokenizer
from tulu.rollout.sampler import Rollout
from tulu.rollout.token_notes import TokenNotes, columns
from tulu.types import Completion, Group, Problem

ROW = {"prompts": 1, "samples": 2, "batch": 2, "max_prompt": 64, "max_tokens": 8, "micro_batch": 8}
STAGE = make_stage(Rlvr, **ROW)


def rollout() -> Rollout:
    """A group of two: three tokens of which the middle one is a tool's, and two tokens."""
    first = Completion([5, 6, 7], [True, False, True], [-1.0, 0.0, -3.0], "stop")
    second = Completion([8, 9], [True, True], [-4.0, -5.0], "stop")
    group = Group([1, 2], (first, second), "p")
    return Rollout(Problem("p", (), [1, 2], "x", ("gsm8k",)), group, ("a", "b"), cast(Any, (None, None)), (1.0, 0.0), (0.5, -0.5))


def test_numbers_go_to_the_tokens_that_are_trained() -> None:
    one = rollout()
    [batch] = pack_rollouts([one], STAGE)
    assert batch.sampled_C == one.group.completions
    notes = TokenNotes()
    notes.add(batch, torch.tensor([0.1, 0.3, 0.4, 0.5]), torch.tensor([1.0, 3.0, 4.0, 5.0]))
    # A second update changes nothing, nor does a row that counts for nothing.
    notes.add(batch, torch.zeros(4), torch.zeros(4))
    notes.add(replace(batch, sampled_C=None), torch.ones(4), None)
    found = notes.read()
    first, second = (found[id(completion)] for completion in one.group.completions)
    assert first.mismatch == pytest.approx([0.1, np.nan, 0.3], nan_ok=True)
    assert second.mismatch == pytest.approx([0.4, 0.5])
    assert first.advantage == pytest.approx([1.0, np.nan, 3.0], nan_ok=True)
    assert second.advantage == pytest.approx([4.0, 5.0])


def test_rows_that_are_trained_elsewhere_have_the_columns_and_nothing_in_them() -> None:
    one = rollout()
    notes = TokenNotes()
    assert columns(one.group.completions[0], notes.read()) == {}
    [batch] = pack_rollouts([one], STAGE)
    notes.add(batch, torch.zeros(4), None)
    assert columns(Completion([1], [True]), notes.read()) == {"token_mismatch": None}


def test_a_tokenizer_of_another_kind_is_not_kept(tmp_path: Any) -> None:
    keep_tokenizer(tmp_path / "rollouts", cast(Any, object()))
    assert not (tmp_path / "rollouts").exists()
