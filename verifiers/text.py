"""Reading a completion: which part of it is the answer, and one spelling for what can be spelled in many ways."""

import re
import string
import unicodedata
from functools import lru_cache

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_MINUS = "\u2212\ufe63\uff0d"
"""Minus signs beyond ASCII."""


_THINKING_NAME = r"(?:seed:)?think(?:ing)?"
_ATTRIBUTE = r"\s++[\w:-]++\s*+=\s*+(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>]++)"  # ` mode="deep"`
_THINKING = re.compile(
    # `<think>`, `</THINKING>`, `<think mode="deep">`, `<seed:think>`; `<think/>` is empty, and hides nothing
    rf"<\s*+(?P<xml>/?)\s*+{_THINKING_NAME}(?:{_ATTRIBUTE})*+\s*+>|"
    # Kimi's `◁think▷` and `◁/think▷`
    r"◁\s*+(?P<kimi>/?)\s*+think(?:ing)?\s*+▷|"
    # Magistral's `[THINK]` and `[/THINK]`, in capitals only, since `[think]` can be a placeholder
    r"(?-i:\[(?P<magistral>/?)THINK\])|"
    # `<|begin_of_thought|>` and `<|end_of_thought|>`, `<|START_THINKING|>` and `<|END_THINKING|>`
    r"<\|(?:(?P<named>end)|begin|start)_(?:of_thought|thinking)\|>",
    re.IGNORECASE,
)
"""A tag that opens or closes thinking; a group that is not empty says that it closes."""
_TAG_STARTS = ("<", "◁", "[THINK]", "[/THINK]")
_ZERO_WIDTH = (
    "\u00ad\u034f\u061c\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060\u2065-\u206f\ufe00-\ufe0f\ufeff\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e01ef"
)
"""Characters without width, as the inside of a pattern's brackets: joiners, marks of direction, selectors, soft hyphen, BOM."""
_BLANK = "\u115f\u1160\u2061-\u2064\u2800\u3164\uffa0\U0001d159"
"""Letters and symbols that show nothing, though some have width: Hangul's fillers, the empty braille cell."""
_UNSEEN = re.compile(f"[{_ZERO_WIDTH}{_BLANK}]")
_NO_WIDTH = re.compile(f"[{_ZERO_WIDTH}]")
_NO_INK = re.compile(f"[{_BLANK}]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
_EDGE = re.compile(f"[\\s{_ZERO_WIDTH}{_BLANK}]*+")
_VISIBLE_ASCII = re.compile(r"[!-~]")
_LETTER_DIGIT_OR_SIGN = re.compile(r"[A-Za-z0-9$+<=>^`|~]")
_UNREADABLE = "\ufffc\ufffd"
"""What stands for something that is not there: an object, a character that could not be read."""


def _shows(character: str, kinds: str) -> bool:
    # An emoji that is newer than this Python's tables counts too.
    seen = unicodedata.category(character)[0] in kinds or "\U0001f300" <= character <= "\U0001faff"
    return seen and not _UNSEEN.match(character) and character not in _UNREADABLE


def has_content(text: str, punctuation: bool = True) -> bool:
    """Whether a text shows a letter, a digit, a symbol or, unless that is not enough, a punctuation mark.

    White space, zero-width and control characters, marks that combine with nothing, and letters that show nothing do not count.
    """
    if (_VISIBLE_ASCII if punctuation else _LETTER_DIGIT_OR_SIGN).search(text):
        return True
    return not text.isascii() and any(_shows(character, "LNSP" if punctuation else "LNS") for character in set(text))


def _edge(text: str) -> int:
    """How many characters at the start of a text are invisible."""
    edge = _EDGE.match(text)
    return edge.end() if edge else 0


def trim_invisible(text: str) -> str:
    """A text without the invisible characters before its first and after its last visible one; the white space there stays."""
    if text.isascii():
        return text
    before = _edge(text)
    after = len(text) - _edge(text[before:][::-1])
    return _UNSEEN.sub("", text[:before]) + text[before:after] + _UNSEEN.sub("", text[after:])


def visible_text(text: str) -> str:
    """A text without control characters and those of zero width, in which blank letters are spaces."""
    text = _CONTROL.sub("", text)
    return text if text.isascii() else _NO_INK.sub(" ", _NO_WIDTH.sub("", text))


def without_thinking_tags(completion: str) -> str:
    """A completion in which thinking is text as any other, because the tags around it are gone."""
    return _THINKING.sub("", completion)


def after_thinking(completion: str) -> str:
    """What follows the last tag that closes thinking, in whatever spelling; nothing where a tag after it opens thinking again.

    Byte order marks and other invisible characters at its edges are no part of it.
    """
    end = 0
    if any(start in completion for start in _TAG_STARTS):
        last: re.Match[str] | None = None
        for tag in _THINKING.finditer(completion):
            last = tag
        if last is not None and not any(last.groups()):
            # Thinking that never ends has no answer.
            return ""
        end = last.end() if last is not None else 0
    return trim_invisible(completion[end:])


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
    """A text whose full-width characters, digits of other scripts, minus signs and spaces are replaced by those of ASCII.

    Characters that show nothing are dropped.
    """
    if text.isascii():
        return text
    text = visible_text(text)
    return text.translate({ord(character): _plain_character(character) for character in set(text) if ord(character) > 127})


def remove_thinking_section(text: str) -> str:
    """What open-instruct grades (ground_truth_utils.py @ e6c3044): what follows the last `</think>`, without the answer tags."""
    text = text.replace("<|assistant|>", "").strip()
    text = text.rsplit("</think>", 1)[-1]
    return text.replace("<answer>", "").replace("</answer>", "").strip()


def last_turn(text: str) -> str:
    """What open-instruct graded @ 5bcd3b25 (December 2024): what follows the last header of an assistant's turn, stripped."""
    return text.rsplit("<|assistant|>\n", 1)[-1].strip()


def normalise_squad(text: str) -> str:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no English articles, single spaces."""
    words = "".join(character for character in text.lower() if character not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", words).split())


def normalise_words(text: str) -> str:
    """A text as words are compared: without regard to case, spacing, outer quotes and a final stop; signs inside still count."""
    words = " ".join(normalise_characters(unicodedata.normalize("NFC", text)).casefold().split())
    return words.strip("\"'`“”‘’").rstrip(".!?").strip() or words
