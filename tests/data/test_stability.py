"""Prefix-stable templates are told from those that ask in other words than they train."""

import pytest

from tests.data.template_rows import tokenizer_of
from tulu.config.templates import TEMPLATES
from tulu.data.stability import prompt_break, turn_break


@pytest.mark.parametrize("name", ["tulu", "tulu_thinker", "zephyr", "qwen_instruct_user_boxed_math"])
def test_a_stable_template_is_told_nothing_of(name: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[name])
    assert prompt_break(tokenizer) == turn_break(tokenizer) == ""


def test_a_prompt_that_is_no_beginning_of_the_conversation_is_shown() -> None:
    told = prompt_break(tokenizer_of(TEMPLATES["r1_simple_chat"]))
    assert told == r"a prompt holds '1=?\nAssistant:' where the conversation that is trained holds '1=?\n\n\nAssistant: 2\n'"
    assert "Remember to put your" in prompt_break(tokenizer_of(TEMPLATES["olmo_thinker_rlzero"]))
    # The template cuts the thought that its own prompt opens.
    assert "<think>" in prompt_break(tokenizer_of(TEMPLATES["tulu_thinker_r1_style"]))


def test_a_last_turn_that_is_written_anew_is_shown() -> None:
    tokenizer = tokenizer_of(TEMPLATES["olmo_thinker_remove_intermediate_thinking"])
    assert prompt_break(tokenizer) == ""
    assert "'ant\\n<think>\\nOne more.\\n</' where once a question follows, it holds 'ant\\n2<|im_end|>" in turn_break(tokenizer)


def test_a_template_that_refuses_the_question_is_told_nothing_of() -> None:
    assert prompt_break(tokenizer_of("{{ raise_exception('no') }}")) == ""
