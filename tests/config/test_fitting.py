"""Whether a stage fits a GPU: rows that hold the longest sequence, and cures that cure."""

import re

import pytest

from tests.config.plan_sections import RLVR, SFT
from tulu.config.facts import Facts, facts_of
from tulu.config.fitting import cure, room_of, rows_of
from tulu.config.options import Gpu, PlanOptions
from tulu.config.plan import GIB
from tulu.config.schema import Recipe, TrainStage
from tulu.config.stages import STAGES


def facts(section: TrainStage, model: str, gpus: int = 1, gpu: Gpu | None = "h100") -> Facts:
    stage = STAGES["rlvr" if section is RLVR or hasattr(section, "prompts") else "sft"]
    recipe = Recipe.model_validate({"name": "x", "model": model, stage.name: section.model_dump(exclude_unset=True)})
    return facts_of(recipe, stage, section, PlanOptions(processes=gpus, gpu=gpu))


def test_auto_is_the_longest_row_that_fits() -> None:
    one = facts(SFT, "allenai/OLMo-2-0425-1B")
    rows = rows_of(one)
    assert rows.room == pytest.approx(0.92 * 80 * GIB)
    assert rows.fits
    assert rows.tokens % 128 == 0
    longer = rows_of(one, SFT.model_copy(update={"row_tokens": rows.tokens + 256}))
    assert not longer.fits


def test_deepspeed_and_no_gpu_measure_nothing() -> None:
    sharded = SFT.model_copy(update={"sharding": "zero2"})
    assert rows_of(facts(sharded, "allenai/OLMo-2-0425-1B", 8)).tokens == 8192
    assert rows_of(facts(SFT, "allenai/OLMo-2-0425-1B", gpu=None)).tokens == 8192
    assert rows_of(facts(SFT, "allenai/OLMo-2-0425-1B", gpu=None)).fits, "nobody named a GPU that it would not fit"


def test_a_row_holds_the_longest_sequence() -> None:
    long = SFT.model_copy(update={"max_length": 32768, "row_tokens": 4096})
    assert rows_of(facts(long, "allenai/OLMo-2-0425-1B")).tokens == 32768


def test_rollouts_share_the_gpu_with_vllm() -> None:
    one = facts(RLVR, "allenai/OLMo-2-0425-1B")
    assert one.card is not None
    assert room_of(RLVR, one.card) == pytest.approx((0.92 - 0.45) * 80 * GIB)
    assert room_of(RLVR.model_copy(update={"engine": "transformers"}), one.card) == pytest.approx(0.92 * 80 * GIB)


@pytest.mark.parametrize(
    ("model", "gpus", "expected"),
    [
        ("allenai/OLMo-2-1124-7B", 1, r"sharding=fsdp2.* --gpus [248]$"),
        ("allenai/OLMo-2-1124-7B", 8, r"sharding=fsdp2$"),
        ("meta-llama/Llama-3.1-405B", 8, r"sharding=fsdp2.* --gpus (128|256)$"),
    ],
)
def test_a_cure_is_the_least_change_and_cures(model: str, gpus: int, expected: str) -> None:
    sick = facts(SFT, model, gpus)
    assert not rows_of(sick).fits
    offered = cure(sick)
    assert re.search(expected, offered), offered
    changed, _, more = offered.partition(" --gpus ")
    fields = dict(entry.split("=") for entry in changed.split())
    values = {key: {"true": True}.get(value, int(value) if value.isdigit() else value) for key, value in fields.items()}
    assert rows_of(sick, SFT.model_copy(update=values), int(more or gpus)).fits


def test_what_nothing_cures() -> None:
    endless = SFT.model_copy(update={"max_length": 100_000_000})
    assert cure(facts(endless, "meta-llama/Llama-3.1-405B")) == ""
