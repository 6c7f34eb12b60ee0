"""How GPUs are divided between learner and engines: what every division keeps, and that the best one is found."""

from dataclasses import replace
from typing import Any

import pytest

from tests.config.plan_sections import RLVR
from tulu.config.cards import CARDS
from tulu.config.decoding import APART_SHARE
from tulu.config.estimate import bill_of, work_of
from tulu.config.facts import Facts, facts_of
from tulu.config.options import PlanOptions
from tulu.config.parts import Resources
from tulu.config.plan import GIB
from tulu.config.schema import Recipe, Rlvr
from tulu.config.splits import NODE, TRIED, Divider, Split, Splits, divider_of, training
from tulu.config.stages import STAGES

SHAPE = {"prompts": 16, "samples": 4, "batch": 64, "minibatches": 1, "max_prompt": 512, "max_tokens": 1024, "max_length": 1536}
STAGE = RLVR.model_copy(update={**SHAPE, "sharding": "fsdp2", "gradient_checkpointing": True, "micro_batch": 64})


def facts(
    stage: Rlvr = STAGE, gpus: int = 8, model: str = "allenai/OLMo-2-0425-1B", options: PlanOptions | None = None, **fields: Any
) -> Facts:
    asked = replace(options or PlanOptions(tokens=300), processes=gpus, gpu="h100")
    return facts_of(Recipe(name="x", model=model), STAGES["rlvr"], stage.model_copy(update=fields), asked)


def divider(*args: Any, **fields: Any) -> Divider:
    made = divider_of(facts(*args, **fields))
    assert made is not None
    return made


def splits(*args: Any, **fields: Any) -> Splits:
    return divider(*args, **fields).splits()


def test_learners_have_whole_groups_and_wait_for_the_one_with_the_most() -> None:
    assert training(1, 2.0)([5, 1, 4]) == 20
    assert training(2, 2.0)([5, 1, 4]) == 18
    assert training(8, 2.0)([5, 1, 4]) == 10


@pytest.mark.parametrize(("model", "gpus"), [("allenai/OLMo-2-0425-1B", 7), ("meta-llama/Llama-3.1-70B", 64)])
@pytest.mark.parametrize("max_staleness", [0, 4])
def test_every_division_can_be_run(model: str, gpus: int, max_staleness: int) -> None:
    found = splits(gpus=gpus, model=model, max_staleness=max_staleness)
    tried = [*found.apart, *([found.ahead] if found.ahead else [])]
    assert tried
    size = facts(model=model).size
    assert size is not None
    for split in tried:
        assert split.fits
        assert split.gpus <= gpus
        assert 64 % split.learners == 0
        assert split.tensor_parallel * APART_SHARE * CARDS["h100"].gib * GIB > 2 * size.parameters
        assert split.tensor_parallel <= NODE
        assert split.outcome.groups == 16
        assert 0 <= split.outcome.staleness <= split.max_staleness
    assert (found.ahead is None) == (max_staleness > 0)
    assert found.together.settings == (max(n for n in range(1, gpus + 1) if 64 % n == 0), 0, 1, max_staleness)
    assert found.together.fits == (model == "allenai/OLMo-2-0425-1B"), "its engine has one GPU"
    assert found.stated.settings == found.together.settings


@pytest.mark.parametrize("max_staleness", [0, 1, 4])
@pytest.mark.parametrize("updates", [1, 8])
def test_the_best_of_all_divisions_is_found(max_staleness: int, updates: int) -> None:
    made = divider(max_staleness=max_staleness, updates=updates)
    found = made.search(max_staleness)
    assert len(found) <= TRIED
    every = [
        made.apart(learners, (8 - learners) // width, width, max_staleness)
        for width in (1, 2, 4)
        for learners in (1, 2, 4)
        if learners + width <= 8
    ]
    least = min(split.outcome.step_seconds for split in every)
    assert found[0].outcome.step_seconds <= 1.03 * least
    assert found == sorted(found, key=lambda split: split.outcome.step_seconds)


def test_more_learning_needs_more_learners_and_more_sampling_more_engines() -> None:
    # GPUs so slow that arithmetic alone counts; of eight groups that are sampled one teaches something, or each does 64 times.
    many = {"prompts": 32, "samples": 8, "batch": 256, "max_tokens": 64, "max_staleness": 2, "gpus": 12}
    sampling = splits(options=PlanOptions(tokens=60, mfu=0.01, teaching=0.125, sync=0, grading=0), **many).apart[0]
    learning = splits(options=PlanOptions(tokens=60, mfu=0.01, sync=0, grading=0), updates=64, **many).apart[0]
    assert sampling.learners < learning.learners
    assert sampling.engines * sampling.tensor_parallel > learning.engines * learning.tensor_parallel


def test_groups_that_teach_nothing_are_sampled_again_or_left_out() -> None:
    halved = PlanOptions(tokens=300, teaching=0.5)
    whole, refilled = splits(max_staleness=1), splits(options=halved, max_staleness=1)
    assert refilled.apart[0].outcome.step_seconds > whole.apart[0].outcome.step_seconds
    assert 15.5 < refilled.apart[0].outcome.groups <= 16, "few are given up after eight rounds"
    smaller = splits(options=halved, max_staleness=1, refill=False, drop_equal=True)
    assert smaller.apart[0].outcome.groups < 12
    all_of_them = splits(options=halved, max_staleness=1, refill=False)
    assert all_of_them.apart[0].outcome == whole.apart[0].outcome, "nothing is sifted"


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    one, again, other = splits(max_staleness=1), splits(max_staleness=1), splits(max_staleness=1, seed=7)
    assert [split.outcome for split in one.apart] == [split.outcome for split in again.apart]
    assert one.together.outcome != other.together.outcome


def test_what_is_given_of_grading_and_sync_is_in_every_step() -> None:
    def turn(**given: Any) -> Split:
        return splits(options=PlanOptions(tokens=300, **given)).together

    assert turn(grading=5.1, sync=1).outcome.step_seconds == pytest.approx(turn(grading=0.1, sync=1).outcome.step_seconds + 5)
    assert turn(sync=9).outcome.step_seconds == pytest.approx(turn(sync=1).outcome.step_seconds + 8)
    assert facts().sync_seconds == pytest.approx(2 * 1.48e9 / 1e9, rel=0.01)


def test_engines_of_their_own_are_vllm_and_in_the_bill() -> None:
    assert splits(engine="transformers").apart == []
    stated = facts(gpus=4, max_staleness=1, resources=Resources(engines=2, tensor_parallel=2))
    work = work_of(stated)
    bill = bill_of(stated, work, 2.0)
    assert work is not None
    assert work.split is not None
    assert bill is not None
    assert work.split.settings == (4, 2, 2, 1)
    assert stated.steps == 5
    assert bill.hours == pytest.approx(5 * work.split.outcome.step_seconds / 3600)
    assert bill.gpu_hours == pytest.approx(8 * bill.hours)
    assert bill.sampling_hours == pytest.approx(bill.hours * work.split.outcome.learner_idle)
    refilled = facts(options=PlanOptions(tokens=300, teaching=0.5))
    again = work_of(refilled)
    assert again is not None
    assert again.split is not None, "what is replaced is simulated"
    assert work_of(facts(options=PlanOptions(tokens=300, teaching=0.5), refill=False)) == work_of(facts(refill=False))


def test_engines_that_sleep_on_the_learners_gpus_need_none_of_their_own() -> None:
    stated = facts(gpus=4, resources=Resources(engines=4, colocated=True))
    work, made = work_of(stated), divider(gpus=4, resources=Resources(engines=4, colocated=True))
    assert work is not None
    assert work.split is not None
    assert (made.gpus, work.split.gpus, work.split.engines) == (4, 4, 0)
    bill = bill_of(stated, work, 2.0)
    assert bill is not None
    assert bill.gpu_hours == pytest.approx(4 * bill.hours)


def test_nothing_is_divided_of_what_is_not_known() -> None:
    assert divider_of(facts(model="owner/unknown")) is None
    assert divider_of(replace(facts(), card=None)) is None
