"""Reading a completion: what is graded of it, and spellings that mean the same."""

import re
import string
import unicodedata
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_MINUS = "\u2212\ufe63\uff0d"


def after_thinking(completion: str) -> str:
    """What follows the last `</think>`; nothing where a `<think>` is still open."""
    opened, closed = completion.rfind("<think>"), completion.rfind("</think>")
    if opened > closed:
        # Thinking that never ends has no answer, also where an earlier block was closed before it.
        return ""
    return completion[closed + len("</think>") :] if closed >= 0 else completion


def last_answer(text: str) -> str | None:
    """Content of the last closed `<answer>` tag, or None."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end)
    return text[start + len("<answer>") : end] if end >= 0 and start >= 0 else None


def final_answer(completion: str) -> str:
    """The one answer of a completion: its last `<answer>` tag, else all that follows the thinking; stripped."""
    text = after_thinking(completion)
    tagged = last_answer(text)
    return (text if tagged is None else tagged).strip()


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in _MINUS:
        return "-"
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    if unicodedata.category(character) == "Zs":
        return " "
    # Superscripts are digits too, but not decimals: 5² must not become 52, as NFKC makes it.
    decimal = unicodedata.decimal(character, None)
    return character if decimal is None else str(decimal)


def plain(text: str) -> str:
    """Full-width characters, digits of any script, minus signs and spaces as their ASCII twins; nothing else changes."""
    if text.isascii():
        return text
    return text.translate({ord(character): _plain(character) for character in set(text) if ord(character) > 127})


def remove_thinking_section(text: str) -> str:
    """open-instruct's reading (ground_truth_utils.py @ e6c3044): after the last `</think>`, answer tags deleted, stripped."""
    text = text.replace("<|assistant|>", "").strip()
    text = text.rsplit("</think>", 1)[-1]
    return text.replace("<answer>", "").replace("</answer>", "").strip()


def squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces."""
    kept = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", kept).split())


def same_words(text: str) -> str:
    """Case, spacing, outer quotes and a final full stop do not matter; signs, points and symbols inside do."""
    words = " ".join(plain(unicodedata.normalize("NFC", text)).casefold().split())
    return words.strip("\"'`“”‘’").rstrip(".!?").strip() or words
