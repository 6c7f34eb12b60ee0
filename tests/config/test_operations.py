"""Operations of a stage: on paper, and beside the count of a model over a real batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.config.plan_sections import DPO, RLVR, RM, SFT
from tulu.config.lengths import Lengths
from tulu.config.operations import Load, forward, learner_operations, load_of, rollout_load, stage_operations, training
from tulu.config.parts import Lora, TeacherSettings, ValueModelSettings
from tulu.config.sizes import Size, model_size

PLAIN = Size(1000, 500)
"""A model of which only parameters are known: a mixture of experts."""
SHAPED = Size(1000, 1000, layers=3, hidden=10, embeddings=200, vocabulary=10, heads=10, windows=((4, 2), (None, 1)))


def test_a_forward_pass_on_paper() -> None:
    assert forward(PLAIN, Load(7, 7, {})) == 2 * 500 * 7, "2 operations a parameter that works"
    load = Load(tokens=8, read=3, pairs={4: 20.0, None: 32.0})
    assert forward(SHAPED, load) == 2 * 800 * 8 + 4 * 10 * (2 * 20 + 32) + 2 * 10 * 10 * 3


def test_training_is_three_forward_passes_and_what_is_recomputed() -> None:
    load = Load(8, 3, {4: 20.0, None: 32.0})
    once, head = forward(SHAPED, load), 2 * 10 * 10 * 3
    assert training(SFT, SHAPED, load) == (3 * once, 0)
    assert training(SFT.model_copy(update={"gradient_checkpointing": True}), SHAPED, load) == (3 * once, once - head)
    assert training(SFT.model_copy(update={"gradient_checkpointing": "selective"}), SHAPED, load)[1] == (once - head) / 2
    adapters, _ = training(SFT.model_copy(update={"lora": Lora()}), SHAPED, load)
    assert adapters == 3 * once - 2 * 800 * 8, "frozen weights have no gradient"


@pytest.mark.parametrize("family", ["olmo2", "olmo3", "olmoe", "llama"])
def test_it_is_the_count_of_the_model_over_a_batch(tiny_model: Callable[..., Path], family: str) -> None:
    """tulu/model/work.py counts weights and pairs of queries and keys of what is trained; here are their totals."""
    from tulu.model.batch import pack_row
    from tulu.model.policy import Policy
    from tulu.model.work import Work, pairs_of
    from tulu.types import Completion, Group

    folder = str(tiny_model(family))
    size = model_size(folder)
    assert size is not None
    groups = [Group([1] * n, (Completion([2] * (2 * n), [True] * (2 * n)),), str(n)) for n in (5, 9, 40)]
    batch = pack_row(groups)
    counted = Work.of(Policy.load(folder).module).on([batch])
    load = Load(batch.n_tokens, batch.n_trained, {window: pairs_of(batch, window) for window, _ in size.windows})
    # The norms, which are a part of a tiny model, are left out here.
    assert training(SFT, size, load)[0] == pytest.approx(counted, rel=0.03)


def test_the_prompt_of_a_pair_is_computed_once() -> None:
    lengths = Lengths(30, 10**9)
    one, pair, scored = (load_of(stage, SHAPED, lengths) for stage in (SFT, DPO, RM))
    assert one.tokens == pytest.approx(30)
    assert one.read == pytest.approx(20), "a third is prompt"
    assert pair.tokens == pytest.approx(10 + 20 + 20)
    assert pair.read == pytest.approx(40)
    assert scored.read == 0
    assert pair.pairs[None] == pytest.approx((2 - 1 / 9) * one.pairs[None])


def test_a_rollout_is_a_prompt_and_what_sees_it() -> None:
    # So long a mean that nearly every answer is cut at 10 tokens.
    load = rollout_load(RLVR.model_copy(update={"samples": 2}), SHAPED, 6.0, Lengths(1e9, 10))
    assert load.tokens == pytest.approx(6 + 2 * 10)
    assert load.read == pytest.approx(20)
    assert load.pairs[None] == pytest.approx(6 * 6 / 2 + 2 * (6 * 10 + 10 * 10 / 2))
    assert load.pairs[4] == pytest.approx(6 * 4 / 2 + 2 * (4 * 10 + 4 * 4 / 2 + 4 * 6))


def test_a_reference_of_dpo_is_computed_once_a_pair() -> None:
    load = Load(10, 5, {})
    once = forward(PLAIN, load)
    assert stage_operations(SFT, PLAIN, load, 200, 100) == {"training": 200 * 3 * once}
    assert stage_operations(DPO, PLAIN, load, 200, 100) == {"training": 200 * 3 * once, "reference": 100 * once}
    assert stage_operations(DPO, PLAIN, load, 50, 100)["reference"] == 50 * once
    assert stage_operations(DPO.model_copy(update={"loss": "simpo"}), PLAIN, load, 50, 100).keys() == {"training"}


def test_the_learner_of_a_step() -> None:
    answers = Lengths(1e9, 10)
    once = forward(PLAIN, rollout_load(RLVR, PLAIN, 6.0, answers))
    assert once == pytest.approx(2 * 500 * (6 + 8 * 10))
    single = RLVR.model_copy(update={"minibatches": 1})
    assert learner_operations(single, PLAIN, None, 6.0, answers) == {"training": 12 * 3 * once}
    many = RLVR.model_copy(update={"updates": 4, "beta": 0.1})
    assert learner_operations(many, PLAIN, None, 6.0, answers) == {
        "training": 12 * 4 * 3 * once,
        "before the updates": 12 * once,
        "reference": 12 * once,
    }
    by_minibatch = RLVR.model_copy(update={"old": "minibatch"})
    assert "before the updates" not in learner_operations(by_minibatch, PLAIN, None, 6.0, answers)


def test_what_is_computed_before_the_updates() -> None:
    """Forward passes of a step, as `fix`, `compare_less_kl` and `remember` of tulu/stages ask for them."""
    answers = Lengths(1e9, 10)
    once = 12 * forward(PLAIN, rollout_load(RLVR, PLAIN, 6.0, answers))
    single = RLVR.model_copy(update={"minibatches": 1})

    def passes(**fields: object) -> float:
        stage = single.model_copy(update=fields)
        return learner_operations(stage, PLAIN, None, 6.0, answers).get("before the updates", 0.0) / once

    assert passes() == 0, "the ratio of a single update is 1"
    assert passes(beta=0.1) == 0
    assert passes(beta=0.1, kl_in="reward") == pytest.approx(1), "rewards are compared once the KL divergence is known"
    assert passes(beta=0.1, kl_in="reward", updates=4) == pytest.approx(1), "the same log-probs serve both"
    assert passes(beta=0.1, kl_in="reward", updates=4, old="minibatch") == pytest.approx(2)
    assert passes(updates=4, old="minibatch") == pytest.approx(1)
    assert passes(lora=Lora(dropout=0.1)) == pytest.approx(1)
    assert passes(lora=Lora()) == 0


def test_a_teacher_reads_every_step() -> None:
    answers = Lengths(1e9, 10)
    stage = RLVR.model_copy(update={"minibatches": 1, "teacher": TeacherSettings(path="owner/teacher")})
    once, other = (forward(size, rollout_load(stage, size, 6.0, answers)) for size in (PLAIN, SHAPED))
    unknown = learner_operations(stage, PLAIN, None, 6.0, answers)
    assert unknown == {"training": 12 * 3 * once, "teacher": pytest.approx(12 * once)}
    assert learner_operations(stage, PLAIN, None, 6.0, answers, SHAPED)["teacher"] == pytest.approx(12 * other)


def test_a_value_model_learns_beside_the_policy() -> None:
    answers = Lengths(1e9, 10)
    ppo = RLVR.model_copy(update={"minibatches": 1, "value": ValueModelSettings()})
    once = forward(PLAIN, rollout_load(RLVR, PLAIN, 6.0, answers))
    # It has other windows than the policy, of which nothing of the kind is known.
    seen = replace(rollout_load(RLVR, SHAPED, 6.0, answers), read=0.0)
    other = forward(SHAPED, seen)
    amounts = learner_operations(ppo, PLAIN, SHAPED, 6.0, answers)
    assert amounts == {
        "training": pytest.approx(12 * 3 * (once + other)),
        "before the updates": pytest.approx(12 * (once + other)),
    }
    assert learner_operations(ppo, PLAIN, None, 6.0, answers)["training"] == 12 * 3 * 2 * once
