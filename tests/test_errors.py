"""Names that a word may stand for."""

import pytest

from tulu.errors import nearest

RECIPES = ["olmo2-13b", "olmo2-1b", "olmo2-instruct", "olmo3-7b-instruct", "olmo3-32b-instruct", "olmoe-0125", "quickstart"]
FIELDS = ["learning_rate", "lora", "max_length", "max_tokens", "weight_decay", "warmup", "batch"]


@pytest.mark.parametrize(
    ("word", "names", "meant"),
    [
        ("olmo2", RECIPES, "olmo2-instruct or olmo2-13b or olmo2-1b"),
        ("olmo3-instruct", RECIPES, "olmo3-7b-instruct or olmo3-32b-instruct"),
        ("OLMo2-1B", RECIPES, "olmo2-1b"),
        ("quick", RECIPES, "quickstart"),
        ("qickstart", RECIPES, "quickstart"),
        ("olmo", RECIPES, "olmo2-instruct or olmo2-13b or olmo2-1b or olmo3-7b-instruct (2 more)"),
        ("lr", FIELDS, "learning_rate"),
        ("wd", FIELDS, "weight_decay"),
        ("max_len", FIELDS, "max_length"),
        ("max", FIELDS, "max_length or max_tokens"),
        ("learning_rat", FIELDS, "learning_rate"),
        ("bacth", FIELDS, "batch"),
        ("length_max", FIELDS, "max_length"),
        ("zzz", FIELDS, ""),
        ("", FIELDS, ""),
        ("-", FIELDS, ""),
        ("b", FIELDS, ""),
    ],
)
def test_a_word_that_abbreviates_comes_before_one_that_is_spelled_alike(word: str, names: list[str], meant: str) -> None:
    assert nearest(word, names) == (f"; did you mean {meant}?" if meant else "")
