"""Reading a completion: which part of it is the answer, and one spelling for what can be spelled in many ways."""

import re
import string
import unicodedata
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_MINUS = "\u2212\ufe63\uff0d"
"""Minus signs beyond ASCII."""


def after_thinking(completion: str) -> str:
    """What follows the last `</think>`; nothing where a `<think>` after it never closes."""
    opened, closed = completion.rfind("<think>"), completion.rfind("</think>")
    if opened > closed:
        # Thinking that never ends has no answer.
        return ""
    return completion[closed + len("</think>") :] if closed >= 0 else completion


def last_tag(text: str, name: str) -> str | None:
    """The content of the last closed tag of a name, such as `<answer>`; None where there is none."""
    opening = f"<{name}>"
    end = text.rfind(f"</{name}>")
    start = text.rfind(opening, 0, max(end, 0))
    return text[start + len(opening) : end] if end >= 0 and start >= 0 else None


def final_answer(completion: str) -> str:
    """The one answer of a completion: its last `<answer>` tag, else all that follows the thinking; stripped."""
    text = after_thinking(completion)
    tagged = last_tag(text, "answer")
    return (text if tagged is None else tagged).strip()


@lru_cache(maxsize=4096)
def _plain_character(character: str) -> str:
    if character in _MINUS:
        return "-"
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    if unicodedata.category(character) == "Zs":
        return " "
    # Superscripts are digits too, but not decimals: 5² must not become 52, as NFKC makes it.
    decimal = unicodedata.decimal(character, None)
    return character if decimal is None else str(decimal)


def normalise_characters(text: str) -> str:
    """A text whose full-width characters, digits of other scripts, minus signs and spaces are replaced by those of ASCII."""
    if text.isascii():
        return text
    return text.translate({ord(character): _plain_character(character) for character in set(text) if ord(character) > 127})


def remove_thinking_section(text: str) -> str:
    """What open-instruct grades (ground_truth_utils.py @ e6c3044): what follows the last `</think>`, without the answer tags."""
    text = text.replace("<|assistant|>", "").strip()
    text = text.rsplit("</think>", 1)[-1]
    return text.replace("<answer>", "").replace("</answer>", "").strip()


def normalise_squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces."""
    words = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", words).split())


def normalise_words(text: str) -> str:
    """A text as words are compared: without regard to case, spacing, outer quotes and a final stop; signs inside still count."""
    words = " ".join(normalise_characters(unicodedata.normalize("NFC", text)).casefold().split())
    return words.strip("\"'`“”‘’").rstrip(".!?").strip() or words
