import sys
import time
import unicodedata

import pytest

from tulu.verifiers.text import (
    after_thinking,
    final_answer,
    has_content,
    normalise_characters,
    trim_invisible,
    visible_text,
    without_thinking_tags,
)

SPELLINGS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</THINK>"),
    ("<Thinking>", "</Thinking>"),
    ("< think >", "</ think >"),
    ("<think mode='deep'>", "</think>"),
    ('<thinking budget="5" kind=long>', "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
]


@pytest.mark.parametrize(("opening", "closing"), SPELLINGS)
def test_thinking_in_every_spelling(opening: str, closing: str) -> None:
    assert after_thinking(f"{opening}no{closing}yes") == "yes"
    assert after_thinking(f"no{closing}\nyes") == "\nyes"
    assert after_thinking(f"{opening}no") == after_thinking(f"yes{opening}no") == ""
    assert after_thinking(f"{opening}a{closing}b{opening}c{closing}yes") == "yes"
    assert after_thinking(f"{opening}a{closing}b{opening}c") == ""
    assert final_answer(f"{opening}<answer>no</answer>{closing}<answer>yes</answer>") == "yes"
    assert without_thinking_tags(f"{opening}a{closing}b") == "ab"


@pytest.mark.parametrize(
    "text",
    ["x < think", "I <think and> act", "<thinker>", "[think]", "<rethink>", "a<think/>b", "think▷", "", "no tags <b>"],
)
def test_what_is_no_thinking(text: str) -> None:
    assert after_thinking(text) == text


def test_invisible_characters_at_the_edges_are_dropped_and_white_space_stays() -> None:
    for unseen in ("\ufeff", "\u200b", "\u2060\u200d", "\u3164", "\u00ad", "\U000e0041"):
        assert after_thinking(f"{unseen}  x é\u200b y{unseen}\n") == "  x é\u200b y\n"
        assert trim_invisible(f"\n{unseen} é {unseen}") == "\n é "
        assert trim_invisible(unseen * 3) == ""


def test_content_is_a_visible_letter_digit_or_symbol() -> None:
    for text in ("a", "7", "+", "é", "あ", "ü", "٣", "😀", "√", " \u200bx", "½", "\U0001fae9"):
        assert has_content(text)
        assert has_content(text, punctuation=False)
    for text in (".", "***", "「」", "[]", "…"):
        assert has_content(text)
        assert not has_content(text, punctuation=False)


def test_no_character_that_shows_nothing_is_content() -> None:
    unseen = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character)[0] in "ZCM" and not "\U0001f300" <= character <= "\U0001faff"
    ]
    assert len(unseen) > 100_000
    assert not has_content("".join(unseen))
    assert not [character for character in unseen[:3000] if has_content(character)]
    for filler in "\u115f\u1160\u3164\uffa0\u2800\ufffc\ufffd":
        assert not has_content(filler * 5)
        assert has_content(filler + "x")


def test_values_are_read_without_what_shows_nothing() -> None:
    assert normalise_characters("\u200b4\u200d2\ufeff") == "42"
    assert normalise_characters("4\u31642 x\ufe0f") == "4 2 x"
    # An invisible times sign must not make one number of two.
    assert normalise_characters("3\u20624") == "3 4"
    assert visible_text("a\u00adb") == "ab"


def test_hostile_texts_are_read_at_once() -> None:
    for part in (
        "<",
        "< ",
        "<think ",
        "<think a=",
        "<think a='",
        "\u200b",
        "<think>",
        "◁",
        "\u200b ",
        "<think a=b ",
        "[THINK",
        "é\u200b",
    ):
        text = part * (1_000_000 // len(part))
        began = time.process_time()
        after_thinking(text)
        has_content(text)
        normalise_characters(text)
        assert time.process_time() - began < 2
