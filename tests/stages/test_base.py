"""A model made from scratch: its configuration is the recipe's."""

from typing import Any

import pytest

from tulu.config.schema import Base
from tulu.errors import RecipeError
from tulu.stages.base import new_policy

CONFIG = {
    "model_type": "olmo2",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def stage(**fields: Any) -> Base:
    training = {"data": "rows.jsonl", "max_length": 64, "batch": 4, "steps": 1, "learning_rate": 1e-3}
    return Base.model_validate({"config": CONFIG, **training, **fields})


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_is_as_the_recipe_has_it(checkpointing: bool) -> None:
    policy = new_policy(stage(gradient_checkpointing=checkpointing))
    assert policy.model.is_gradient_checkpointing == checkpointing
    assert policy.model.config.hidden_size == 16


def test_a_configuration_that_is_none_is_a_mistake_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"base\.config"):
        new_policy(stage(config={"model_type": "no-such-model"}))
