"""How long a document a model can read."""

from typing import Any

import pytest
from transformers import AutoConfig

from tulu.errors import RecipeError
from tulu.model.positions import check_length, longest_document

ROPE = {"rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("model_type", "fields", "longest"),
    [
        ("gpt2", {"n_positions": 128}, 128),
        ("opt", {"max_position_embeddings": 100}, 100),
        ("llama", {"max_position_embeddings": 4096}, 4096),
        # The configuration states the length before scaling …
        ("llama", {"max_position_embeddings": 1000, "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0}}, 2000),
        ("llama", {"max_position_embeddings": 1000, "rope_parameters": {**ROPE, "rope_type": "linear", "factor": 2.5}}, 2500),
        # … or the one after it.
        (
            "llama",
            {
                "max_position_embeddings": 4000,
                "rope_parameters": {**ROPE, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1000},
            },
            4000,
        ),
        (
            "llama",
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {
                    **ROPE,
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                },
            },
            131072,
        ),
        ("bloom", {}, None),
        ("falcon", {"alibi": True}, None),
        ("mamba", {}, None),
    ],
)
def test_longest_document(model_type: str, fields: dict[str, Any], longest: int | None) -> None:
    config = AutoConfig.for_model(model_type, **fields)
    assert longest_document(config) == longest
    if longest is not None:
        check_length(longest, "sft.max_length", config, "MODEL")
        with pytest.raises(RecipeError, match=f"sft.max_length: {longest + 1} tokens, but MODEL has {longest} positions"):
            check_length(longest + 1, "sft.max_length", config, "MODEL")


def test_the_cure_is_that_of_the_model() -> None:
    with pytest.raises(RecipeError, match=r"(?s)dpo.max_length: 600.*to 512 or less.*rope_parameters"):
        check_length(600, "dpo.max_length", AutoConfig.for_model("llama", max_position_embeddings=512), "MODEL")
    with pytest.raises(RecipeError) as error:
        check_length(300, "dpo.max_length", AutoConfig.for_model("gpt2", n_positions=256), "MODEL")
    assert "rope_parameters" not in str(error.value)
