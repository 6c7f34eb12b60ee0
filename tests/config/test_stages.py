"""The stage table agrees with the recipe's fields and with the code that it names."""

import inspect

import pytest

from tulu.config.parts import section_in
from tulu.config.schema import Recipe, TrainStage
from tulu.config.stages import STAGES, TRAINING, Stage, resolve


def test_the_table_has_the_sections_of_a_recipe_in_their_order() -> None:
    sections = {name: section_in(info.annotation) for name, info in Recipe.model_fields.items()}
    assert {name: resolve(stage.section) for name, stage in STAGES.items()} == {n: s for n, s in sections.items() if s}
    assert list(STAGES) == [name for name, section in sections.items() if section]


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_a_row_is_true_of_its_stage(stage: Stage) -> None:
    assert issubclass(resolve(stage.section), TrainStage) == stage.trains == (stage in TRAINING)
    assert list(inspect.signature(resolve(stage.runner)).parameters) == ["job"]
    order = list(STAGES)
    assert all(STAGES[earlier].yields_policy and order.index(earlier) < order.index(stage.name) for earlier in stage.starts_from)


def test_one_stage_makes_a_model_and_pairs_have_two_sequences() -> None:
    assert [stage.name for stage in TRAINING if stage.makes_model] == ["base"]
    assert {name: stage.sequences_per_unit for name, stage in STAGES.items()} == {
        "base": 1,
        "sft": 1,
        "merge": 1,
        "dpo": 2,
        "rm": 2,
        "rlvr": 1,
        "evaluate": 1,
    }
