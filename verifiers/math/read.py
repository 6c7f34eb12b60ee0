"""Reads an answer into a typed value: its tokens without the words around them, then options, times and bases, then formulas."""

import re
from fractions import Fraction
from functools import lru_cache

from tulu.verifiers.math.statements import Statements
from tulu.verifiers.math.tokens import Token, Unreadable, tokenize
from tulu.verifiers.math.typed import typed
from tulu.verifiers.math.units import COUNTED
from tulu.verifiers.math.values import (
    REALS,
    Based,
    Named,
    Number,
    Option,
    Parts,
    Text,
    Value,
)

_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)  # 12:00, 4:30 p.m.
_BASED = re.compile(r"\(?([0-9A-Fa-f]+)\)?_(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|sixteen)")  # 1A_16, (1010)_two
_BASES = {name: base for base, name in enumerate("two three four five six seven eight nine ten".split(), 2)} | {"sixteen": 16}
_OPTION = re.compile(r"(?:option|choice|answer)?\s*[(\[]?\s*([A-Z])\s*[)\]]?\s*[.:]?", re.IGNORECASE)  # (B), option B, B.
_ALL_REALS = frozenset(("all real numbers", "all reals", "all real values", "the set of all real numbers"))
_LEAD_END = frozenset("is are equals be becomes".split())
_NEGATIONS = frozenset("not never cannot neither nor n't don't doesn't isn't aren't wasn't no without except".split())
_LONGEST_LEAD = 12
"""Words of a sentence in front of an answer."""


@lru_cache(maxsize=32_768)
def read(text: str) -> tuple[Value, ...]:
    """The readings of an answer: one, or two where a slash can be read in two ways. What cannot be read is text."""
    try:
        tokens = _without_lead(tokenize(text))
    except Unreadable:
        return (as_text(text, ()),)
    joined = "".join((" " if token.spaced else "") + token.text for token in tokens).strip().strip("{}").rstrip(".,;")
    if special := _special(joined.replace("{", "").replace("}", "")):
        return (special,)
    if option := _option(tokens):
        return (option,)
    values, flags = list[Value](), [(False, False)]
    for tight, plain_units in flags:
        parser = Statements(list(tokens), tight, plain_units)
        try:
            values.append(typed(parser.whole()))
        except (Unreadable, RecursionError, ValueError):
            if not plain_units and parser.unit_letters:
                flags.append((tight, True))
            continue
        if len(flags) == 1:
            flags += [(True, False)] * parser.ambiguous + [(False, True)] * parser.unit_letters
    return tuple(values) or (_labelled(tokens) or as_text(text, tuple(tokens)),)


def _labelled(tokens: list[Token]) -> Value | None:
    """The value behind a label that is no formula of ours, such as `P(A|B) = \\frac13`; None where there is none."""
    texts = [token.text for token in tokens]
    if (
        texts.count("=") != 1
        or texts[0] == "="
        or tokens[0].kind in ("number", "mark")
        or {",", "or", "and", "if", "<", ">"} & set(texts)
    ):
        return None
    place = texts.index("=")
    try:
        return Named(("sym", " ".join(texts[:place])), typed(Statements(tokens[place + 1 :], False).whole()))
    except (Unreadable, RecursionError, ValueError):
        return None


def as_text(text: str, tokens: tuple[Token, ...]) -> Text:
    """An answer as words, in one case and spacing."""
    if not tokens:
        return Text(" ".join(text.split()), is_formula="\\" in text)
    words = "".join((" " if token.spaced or token.kind == "command" else "") + token.text for token in tokens)
    is_formula = any(token.kind == "command" or token.text in ("^", "_") for token in tokens)
    if is_formula:
        return Text(" ".join(words.split()), True)
    return Text(" ".join(words.replace("{", "").replace("}", "").casefold().split()).strip("\"'`()").rstrip(".!?,; "))


def _without_lead(tokens: list[Token]) -> list[Token]:
    """The tokens behind `The answer is`, `Answer:` and the like; all of them where no such words stand in front."""
    tokens = _trimmed(tokens)
    if tokens and tokens[0].text.lower() in ("minus", "negative"):
        return [Token("mark", "-", True), *tokens[1:]]
    words = 0
    for position, token in enumerate(tokens[: 2 * _LONGEST_LEAD]):
        is_word = token.kind in ("word", "run") or (token.kind == "letter" and token.text in "aAI" and token.spaced)
        if token.kind == "mark" and token.text == ":" and words and token is not tokens[-1]:
            return _trimmed(tokens[position + 1 :]) if _is_prose(tokens[:position]) else tokens
        if not is_word and not (token.kind in ("mark", "letter", "number") and words):
            break
        words += is_word
        if is_word and token.text.lower() in _LEAD_END and position and position + 1 < len(tokens):
            following = tokens[position + 1]
            if following.text.lower() in _NEGATIONS or any(word.text.lower() in _NEGATIONS for word in tokens[:position]):
                return tokens
            rest = _trimmed(tokens[position + 1 :])
            return rest if _is_prose(tokens[:position]) and rest else tokens
    return tokens


def _is_prose(tokens: list[Token]) -> bool:
    texts = [token.text.lower() for token in tokens]
    return not any(text in _NEGATIONS for text in texts) and any(
        token.kind in ("word", "run") and len(token.text) > 1 for token in tokens
    )


def _trimmed(tokens: list[Token]) -> list[Token]:
    """Tokens without full stops, quotes, bold marks and `=` around them."""
    start, end = 0, len(tokens)
    while start < end and tokens[start].text in ("^", "*", '"', "'", "`", "=", "approx", ",", ":", "to", "Rightarrow"):
        start += 1
    while end > start and tokens[end - 1].text in (".", "^", "*", '"', "`", ",", ";", "\\\\", ":"):
        end -= 1
    return tokens[start:end]


def _special(joined: str) -> Value | None:
    """A number word, a time or a number in a base; None for anything else."""
    if (number := COUNTED.get(joined.lower())) is not None:
        return Number(("num", Fraction(number)))
    if joined.lower() in _ALL_REALS:
        return REALS
    if time := _TIME.fullmatch(joined):
        return Parts("time", tuple(("num", Fraction(part or "0")) for part in time.groups()[:3]), (time[4] or "").lower())
    if based := _BASED.fullmatch(joined.replace(" ", "").replace("{", "").replace("}", "")):
        base = _BASES.get(based[2]) or int(based[2])
        if 2 <= base <= 36:
            return Based(based[1].upper(), base)
    return None


def _option(tokens: list[Token]) -> Option | None:
    """The option that an answer begins with: `(A)`, `A) 5`, `A: 5`, `option A`; None where it begins with none."""
    joined, ends = "", list[int]()
    for token in tokens[:4]:
        joined += token.text
        ends.append(len(joined))
    match = _OPTION.match(joined)
    if not match or match.end() not in ends or not match[1].isupper():
        return None
    used, marked = ends.index(match.end()) + 1, joined[: match.end()] != match[1]
    rest = tokens[used:]
    if not rest:
        return Option(match[1])
    if not marked or not (rest[0].spaced or joined[match.end() - 1] in ".:)") or rest[0].text in "+-*/^_!'=([,<>|":
        return None
    if rest[0].kind == "mark" or (joined[match.end() - 1] == ")" and not (rest[0].spaced or joined[0] != "(" or rest[0].style)):
        return None
    words = [token.text for token in rest]
    if any(word in ("or", "and", "nor") for word in words) or any(re.fullmatch("[A-Z]", word) for word in words):
        return None
    return Option(match[1], _rest(rest))


def _rest(tokens: list[Token]) -> Value:
    try:
        return typed(Statements(list(tokens), False).whole())
    except (Unreadable, RecursionError, ValueError):
        return as_text("", tuple(tokens))
