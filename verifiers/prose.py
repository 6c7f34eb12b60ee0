"""Sentences, words and tokens of English prose, cut by rules without a model or a data file, so that every machine agrees.

IFEval and IFBench use nltk, which downloads its data at run time; these rules agree with it on ordinary text, but not on all.
"""

import re
import string
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from tulu.verifiers.text import has_content

_BREAK = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s|$)")
"""Where a sentence may end: `.`, `?!`, `."`, before a space or the end of the text."""
_CLOSING = "\"'”’)]*_"
_LIST_NUMBER = re.compile(
    r"(?:^|\n)[ \t>*_(-]*(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})\.[*_]*$"
)  # `1.`, `- 2.`, `**a.`, at the start of a line
_LONGEST_NUMBER = 16
_SEEN = re.compile(r"\S")
_ABBREVIATION = re.compile(r"(?:^|[\s(\"'“‘\[])((?:[A-Za-z]\.)+[A-Za-z]?|[A-Za-z]+)\.$")
"""The last word before a full stop: `e.g.`, `U.S.`, `Dr.`."""
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st vs etc e.g i.e cf al inc ltd co corp dept est fig gen gov hon lt maj col capt sgt rev "
    "mt ave blvd rd no vol pp approx jan feb mar apr jun jul aug sep sept oct nov dec a.m p.m u.s u.k ph.d b.c a.d".split()
)
_MAY_END = frozenset("etc inc ltd co corp jr sr a.m p.m u.s u.k ph.d b.c a.d".split())
"""Abbreviations that may also end a sentence; they do where a capital follows."""
_TOKEN = re.compile(
    # "...", "--"; "U.S."; "3.14", "1,000", "10:30"
    r"\.{3}|--+|(?:[A-Za-z]\.){2,}|\d+(?:[.,:]\d+)*|"
    # "well-known", "don't"; a single mark
    r"\w+(?:[-'’.]\w+)*|[^\w\s]"
)
_CONTRACTION = re.compile(r"(?i)(.+?)(n't|['’](?:s|re|ve|ll|d|m))$")  # `do` and `n't`, `she` and `'s`, `we` and `'ll`
_WORD = re.compile(r"\w+")
_DELETE_PUNCTUATION = str.maketrans("", "", string.punctuation)


def read_words(name: str) -> frozenset[str]:
    """The words of a list in the folder `words`."""
    return frozenset((Path(__file__).with_name("words") / f"{name}.txt").read_text(encoding="utf-8").split())


STOP_WORDS = read_words("stop_words")
"""English stop words, those of nltk's corpus."""
_VERBS = read_words("verbs")
"""Common verbs, as a dictionary gives them."""
_IRREGULAR = read_words("irregular_verbs")
"""Forms of verbs that no rule makes: `went`, `let's`."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, stripped; a last one without a full stop counts too.

    The number of a list's entry is no sentence and no part of one, and neither are marks alone.
    """
    parts, start = [], 0
    for match in _BREAK.finditer(text):
        if _is_list_number(text, match):
            line = text.rfind("\n", start, match.end()) + 1
            # A number that begins a sentence is left out; after words, it is one of them.
            start = match.end() if _SEEN.search(text, start, max(line, start)) is None else start
        elif _ends_sentence(text, start, match) and not _is_abbreviated(text, start, match):
            parts.append(text[start : match.end()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    return [sentence for sentence in parts if has_content(sentence, punctuation=False)]


def _is_list_number(text: str, match: re.Match[str]) -> bool:
    """Whether a full stop follows the number of a list's entry, which has a text: `1. Apples`."""
    after = text[match.end() : match.end() + 2]
    if match[0].rstrip("*_") != "." or after[:1] not in (" ", "\t") or not after.strip():
        return False
    line = text[max(0, match.start() - _LONGEST_NUMBER) : match.end()]
    return _LIST_NUMBER.search(line) is not None and (match.start() <= _LONGEST_NUMBER or "\n" in line)


def _is_abbreviated(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a full stop before a closing mark belongs to an abbreviation, since a small letter follows: `(e.g.) this`."""
    if match[0] == "." or match[0].rstrip(_CLOSING) != "." or not text[match.end() : match.end() + 40].lstrip()[:1].islower():
        return False
    before = _ABBREVIATION.search(text[max(start, match.start() - 16) : match.start() + 1])
    return before is not None and before[1].lower().rstrip(".") in _ABBREVIATIONS


Cut = Callable[[str], list[str]]
"""How a text is cut into sentences: `sentences`, or `upstream_sentences` in mode tulu3."""


def upstream_sentences(text: str) -> list[str]:
    """The sentences as mode tulu3 cuts them, where the number of a list's entry is one, and `(e.g.)` ends one."""
    parts, start = [], 0
    for match in _BREAK.finditer(text):
        if _ends_sentence(text, start, match):
            parts.append(text[start : match.end()].strip())
            start = match.end()
    parts.append(text[start:].strip())
    return [sentence for sentence in parts if sentence]


def last_mark(sentence: str) -> str:
    """The mark that a sentence ends with, inside its closing quotes and brackets: `.` of `"Go."`."""
    return sentence.rstrip(_CLOSING)[-1:]


def _ends_sentence(text: str, start: int, match: re.Match[str]) -> bool:
    """Whether a match of _BREAK ends a sentence: not in `Dr. Who` or `J. Smith`, nor in `so ... it goes`."""
    after = text[match.end() : match.end() + 40].lstrip()
    if match[0].startswith(("...", "…")):
        return not after[:1].islower()
    if match[0] != ".":
        return True
    # An abbreviation is short: looking back a little is enough, and keeps this linear.
    before = _ABBREVIATION.search(text[max(start, match.start() - 16) : match.end()])
    if before is None:
        return True
    word = before[1].lower().rstrip(".")
    if word in _MAY_END:
        return after[:1].isupper()
    initial = len(word) == 1 and before[1].isupper() and word != "i" and after[:1].isupper()
    return not after or not (word in _ABBREVIATIONS or initial)


@lru_cache(maxsize=256)
def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers and punctuation marks as Penn Treebank tokenisers cut them: `don't` is `do` and `n't`."""
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        contraction = _CONTRACTION.match(token)
        parts.extend(contraction.groups() if contraction else (token,))
    return tuple(parts)


def word_tokens(text: str) -> list[str]:
    """The tokens that hold a letter or a digit."""
    return [token for token in tokens(text) if any(character.isalnum() for character in token)]


def regexp_words(text: str) -> list[str]:
    r"""The runs of \w, which IFEval and IFBench count as words: `don't` is `don` and `t`."""
    return _WORD.findall(text)


def without_punctuation(text: str) -> str:
    """A text without its ASCII punctuation."""
    return text.translate(_DELETE_PUNCTUATION)


def bare_words(text: str) -> list[str]:
    """The words between spaces, in lower case and without ASCII punctuation: `Don't stop.` is `dont` and `stop`."""
    return without_punctuation(text.lower()).split()


@lru_cache(maxsize=8192)
def is_verb(word: str) -> bool:
    """Whether a word is a form of a common English verb; by a list and not by a tagger, so that the answer never changes."""
    lower = word.lower()
    if lower in _VERBS or lower in _IRREGULAR:
        return True
    for ending, restores in (("ing", ("", "e")), ("ed", ("", "e")), ("es", ("", "e")), ("s", ("",)), ("d", ("",))):
        if not lower.endswith(ending):
            continue
        stem = lower[: -len(ending)]
        doubled = stem[:-1] if len(stem) > 2 and stem[-1:] == stem[-2:-1] else stem
        y_form = stem[:-1] + "y" if stem.endswith("i") else stem
        if any(form in _VERBS for form in [*(stem + rest for rest in restores), doubled, y_form]):
            return True
    return False
