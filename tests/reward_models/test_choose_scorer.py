"""Architectures that packed rows would get wrong are found, and scored as transformers does one text at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tulu.data.chat import apply_template, make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.reward_models.choose_scorer import load_scorer, why_not_packed
from tulu.reward_models.items import Item
from tulu.reward_models.options import RewardBenchOptions
from tulu.reward_models.scorers import ClassifierScorer, PlainClassifierScorer
from tulu.types import Message

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"head_dim": 8, "sliding_window": 8, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8},
    "deberta-v2": {},
}


def make(family: str, folder: Path, labels: int = 1, **more: Any) -> Path:
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, "tulu")
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer), max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id, **SHAPE, **more
    )
    config.num_labels = labels
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def item(key: str, chosen: str, rejected: str) -> Item:
    def say(text: str) -> tuple[tuple[Message, ...], ...]:
        return (({"role": "assistant", "content": text},),)

    return Item(key, "x", ({"role": "user", "content": f"Question {key}"},), say(chosen), say(rejected))


ITEMS = [item("1", "a good answer here", "bad"), item("2", "x" * 60, "y"), item("3", "same", "same")]


@pytest.mark.parametrize("family", list(FAMILIES))
def test_scores_equal_transformers_one_at_a_time(family: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path, **FAMILIES[family])
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row_tokens in (10, 100, 8192):
        scorer = load_scorer(str(folder), "free", RewardBenchOptions(row_tokens=row_tokens))
        assert isinstance(scorer, PlainClassifierScorer)
        for one, found in zip(ITEMS, scorer.score(ITEMS), strict=True):
            for answer, score in zip(one.answers, found.scores, strict=True):
                messages: Any = [*one.prompt, *answer]
                text = tokenizer.apply_chat_template(messages, tokenize=False)
                tokens = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
                with torch.no_grad():
                    assert score == pytest.approx(model(input_ids=tokens).logits[0, 0].item(), abs=1e-5)


def test_ordinary_classifiers_are_packed(tiny_reward_model: Callable[..., Path]) -> None:
    folder = tiny_reward_model("olmo2")
    assert why_not_packed(AutoConfig.from_pretrained(folder)) == ""
    assert isinstance(load_scorer(str(folder), "free", RewardBenchOptions()), ClassifierScorer)


def test_one_label_only(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="a classifier with 3 labels"):
        load_scorer(str(make("deberta-v2", tmp_path, labels=3)), "free", RewardBenchOptions())


def test_architectures_without_a_classifier(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="olmo_hybrid: no classifier of this architecture"):
        load_scorer(str(tiny_model("olmo_hybrid")), "free", RewardBenchOptions(kind="classifier"))
