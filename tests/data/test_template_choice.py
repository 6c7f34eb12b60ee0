"""The template that a recipe names is set on the tokenizer, or refused in one message."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.data.test_chat import CHATML, tokenizer_with
from tulu.config.templates import TEMPLATES
from tulu.data.chat import apply_template, make_byte_tokenizer, template_hash
from tulu.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer", "has no chat template"),
        ("tullu", "did you mean tulu"),
        ("olmo123", "write olmo-3-tokenizer-instruct-dev"),
        ("xyz", "known are"),
    ],
)
def test_wrong_template_names(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        apply_template(make_byte_tokenizer(), name)


def test_a_template_needs_the_tokens_it_writes() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(RecipeError, match="writes eos_token"):
        apply_template(PreTrainedTokenizerFast(tokenizer_object=backend), "tulu")
    with pytest.raises(RecipeError, match="writes bos_token"):
        apply_template(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="[UNK]"), "tulu_bos")


def test_a_template_of_a_file_is_set(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text(CHATML)
    tokenizer = make_byte_tokenizer()
    apply_template(tokenizer, str(tmp_path / "mine.jinja"))
    assert tokenizer.chat_template == CHATML
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    (tmp_path / "mine.jinja").write_text(CHATML + "{{ eos_token }}")
    with pytest.raises(RecipeError, match=r"mine.jinja writes eos_token, which this tokenizer does not have"):
        apply_template(PreTrainedTokenizerFast(tokenizer_object=backend), str(tmp_path / "mine.jinja"))
    (tmp_path / "mine.jinja").write_text(CHATML + "{% if eos_token is defined %}{{ eos_token }}{% endif %}")
    apply_template(PreTrainedTokenizerFast(tokenizer_object=backend), str(tmp_path / "mine.jinja"))


def test_a_pinned_hash_holds_the_tokenizers_own_template_too() -> None:
    tokenizer = tokenizer_with(CHATML)
    apply_template(tokenizer, "tokenizer", template_hash(tokenizer))
    with pytest.raises(RecipeError, match=r"^template_hash: 0{16}: the template's hash is [0-9a-f]{16}, so its text is another"):
        apply_template(tokenizer, "tokenizer", "0" * 16)


def test_the_tokenizers_own_template_stays() -> None:
    tokenizer = tokenizer_with(CHATML)
    apply_template(tokenizer, "tokenizer")
    assert tokenizer.chat_template == CHATML


def test_template_hash_tells_templates_apart() -> None:
    hashes = {template_hash(tokenizer_with(name)) for name in TEMPLATES}
    assert len(hashes) == len(set(TEMPLATES.values()))
    assert all(len(each) == 16 for each in hashes)
    assert template_hash(make_byte_tokenizer()) == ""
