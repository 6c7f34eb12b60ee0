"""Equality of ordinary algebra in linear time: both sides are computed to fifty digits at fixed points.

Two expressions that agree to forty digits at unrelated points are equal for all that answers look like; two that differ in
the tenth are not. Trigonometry, logarithms and the like are computed as far. Whatever else an answer holds is left to
math-verify.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, DecimalException, localcontext
from functools import lru_cache

from tulu.verifiers.math.decimals import PI, arctangent, cosine, sine, tangent

_GREEK = "alpha beta gamma delta epsilon theta lambda mu sigma phi omega rho tau".split()
_TOKEN = re.compile(
    r"\s*(\d+(?:\.\d+)?|\.\d+|\\frac|\\sqrt|\\pi(?![a-z])|\\cdot|\\times|\\(?:sin|cos|tan|ln|exp|arctan)(?![a-z])|"
    rf"\\(?:{'|'.join(_GREEK)})(?![a-z])|[a-zA-Z]|[-+*/^(){{}}\[\]])"
)
_DIGITS = 60
_EQUAL, _UNEQUAL = Decimal("1e-40"), Decimal("1e-9")
_NOUGHT = Decimal("1e-25")
"""What functions leave of a zero may be anything below this, and of a pole anything above its inverse."""
_E = Decimal("2.71828182845904523536028747135266249775724709369995957496696762772407663")
_POWER = 400
_LONGEST = 512
_POINTS = ((Decimal("0.7310585786"), 1), (Decimal("1.2689414213"), -1))
"""Scale and sign of the letters' values; roots of negative numbers at the second leave the question open."""
_FUNCTIONS: dict[str, Callable[[Decimal], Decimal]] = {
    "\\sin": sine,
    "\\cos": cosine,
    "\\tan": tangent,
    "\\ln": Decimal.ln,
    "\\exp": Decimal.exp,
    "\\arctan": arctangent,
}
_LISTED = 12
"""Elements of a list or a set that are compared each with each."""
_GROUPED = re.compile(r"\d\s*,\s*\d{3}(?!\d)")
_SYMBOL = re.compile(r"[A-Za-z](?:\([a-z]\))?")
_BRACKETS = {"(": ")", "[": "]"}


class _Unread(Exception):
    """Not the kind of expression that is read here."""


_FAULTS = (_Unread, DecimalException, RecursionError, ArithmeticError, ValueError, TypeError)


class _Reader:
    """Recursive descent over tokens, computing as it goes."""

    def __init__(self, tokens: Sequence[str], point: tuple[Decimal, int]) -> None:
        self._tokens, self._at, self._point = tokens, 0, point

    def value(self) -> Decimal:
        """The value of all tokens."""
        result = self._sum()
        if self._next() is not None:
            raise _Unread
        return result

    def _next(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, wanted: str | None = None) -> str:
        token = self._next()
        if token is None or (wanted is not None and token != wanted):
            raise _Unread
        self._at += 1
        return token

    def _sum(self) -> Decimal:
        sign = -1 if self._next() == "-" else 1
        if self._next() in ("-", "+"):
            self._take()
        result = sign * self._product()
        while self._next() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            result += sign * self._product()
        return result

    def _product(self) -> Decimal:
        result, divided = self._power(), False
        while True:
            token = self._next()
            if token in ("*", "\\cdot", "\\times"):
                self._take()
                sign = -1 if self._next() == "-" else 1
                if sign < 0:
                    self._take()
                result *= sign * self._power()
            elif token == "/":
                self._take()
                result /= self._power()
                divided = True
            elif token is None or token in ("+", "-", ")", "}", "]"):
                return result
            else:
                # 1/2x is read both ways, and 2 1/2 or 2\frac12 may be a mixed number.
                after_number = self._tokens[self._at - 1][-1:].isdigit() and (token == "\\frac" or token[0].isdigit())
                if divided or after_number or token[0] in ".0123456789":
                    raise _Unread
                result *= self._power()

    def _power(self) -> Decimal:
        base = self._atom()
        if self._next() != "^":
            return base
        self._take()
        exponent = self._exponent()
        if self._next() == "^" or abs(exponent) > _POWER:
            raise _Unread
        if exponent != int(exponent) and base <= 0:
            raise _Unread
        return base**exponent

    def _exponent(self) -> Decimal:
        token = self._next()
        if token == "{":
            return self._group("{", "}")
        # TeX reads x^10 as x^1 0, people do not.
        if token is None or len(token) != 1 or not token.isalnum():
            raise _Unread
        return self._atom()

    def _group(self, opening: str, closing: str) -> Decimal:
        self._take(opening)
        result = self._sum()
        self._take(closing)
        return result

    def _atom(self) -> Decimal:
        token = self._next()
        if token in ("(", "{", "["):
            return self._group(token, {"(": ")", "{": "}", "[": "]"}[token])
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            return Decimal(token)
        if token == "\\pi":
            return PI
        if token == "\\frac":
            above = self._group("{", "}")
            return above / self._group("{", "}")
        if token == "\\sqrt":
            root = Decimal(2)
            if self._next() == "[":
                root = self._group("[", "]")
            if self._next() != "{" or root <= 0:
                raise _Unread
            inner = self._group("{", "}")
            if inner < 0:
                raise _Unread
            return inner.sqrt() if root == 2 else inner ** (1 / root)
        if token in _FUNCTIONS:
            return self._function(_FUNCTIONS[token])
        return self._letter(token)

    def _function(self, function: Callable[[Decimal], Decimal]) -> Decimal:
        power = Decimal(1)
        if self._next() == "^":
            self._take()
            power = self._exponent()
            if power <= 0:
                raise _Unread
        if self._next() in ("(", "{"):
            inner = self._atom()
            if self._next() == "^":
                raise _Unread
        else:
            # \\sin 2x is the sine of the whole product.
            inner = self._power()
            while (token := self._next()) is not None and (token.isalnum() or token in ("\\pi", "\\frac") or token[1:] in _GREEK):
                inner *= self._power()
        return function(inner) ** power

    def _letter(self, token: str) -> Decimal:
        if token == "e":
            return _E
        if not (token.isalpha() or token[1:] in _GREEK):
            raise _Unread
        code = ord(token) if len(token) == 1 else 200 + _GREEK.index(token[1:])
        scale, sign = self._point
        return sign * scale * (Decimal(code * 7919 % 1013) / 211 + 1)


def _tokens(text: str) -> list[str]:
    if len(text) > _LONGEST:
        raise _Unread
    found, at = list[str](), 0
    text = text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Unread
        found.append(match[1])
        at = match.end()
    return found


@lru_cache(maxsize=8192)
def _values(text: str) -> tuple[list[Decimal | None], set[str]]:
    """The value of a text at each point, None where it has none or cannot be read; and the tokens it consists of."""
    try:
        tokens = _tokens(text)
    except _Unread:
        return [None] * len(_POINTS), set()
    values = list[Decimal | None]()
    for point in _POINTS:
        try:
            values.append(_Reader(tokens, point).value())
        except _FAULTS:
            values.append(None)
        if not any(token.isalpha() or token[1:] in _GREEK for token in tokens):
            # A number is the same everywhere.
            values *= len(_POINTS)
            break
    return values, set(tokens)


def _compare(answer: str, gold: str) -> bool | None:
    (said, marks), (wanted, others), same = _values(answer), _values(gold), True
    marks = marks | others
    for a, b in zip(said, wanted, strict=True):
        # 0^{-1} is computed as an infinity, which lies within every tolerance of every number.
        if a is None or b is None or not (a.is_finite() and b.is_finite()):
            return None
        apart, size = abs(a - b), max(abs(a), abs(b))
        if marks & _FUNCTIONS.keys() and not _NOUGHT < size < 1 / _NOUGHT:
            return None
        if apart > _UNEQUAL * size:
            # What holds for any i holds for the imaginary unit, but not the other way round.
            return None if "i" in marks else False
        same = same and apart <= _EQUAL * size
    return True if same else None


def _end(answer: str, gold: str) -> bool | None:
    """As _compare, for an end of an interval, which may be infinite."""
    a, b = (text.replace(" ", "").removeprefix("+") for text in (answer, gold))
    if "\\infty" not in a + b:
        return _compare(answer, gold)
    ends = ("\\infty", "-\\infty")
    if (a in ends and b in ends) or "\\infty" not in a or "\\infty" not in b:
        return a == b
    return None


def _elements(text: str) -> tuple[str, list[str]] | None:
    """Brackets and elements of a tuple, an interval, a set or a bare list; None where a text is one expression."""
    kind, inner = "", text
    if text.startswith("\\{") and text.endswith("\\}"):
        kind, inner = "{}", text[2:-2]
    elif text[:1] in _BRACKETS and text[-1:] in _BRACKETS.values():
        kind, inner = text[0] + text[-1], text[1:-1]
    parts = _parts(inner)
    if parts is None and kind not in ("", "{}"):
        # (1,2),(3,4) begins and ends as a pair does.
        kind, parts = "", _parts(text)
    return (kind, parts) if parts is not None and len(parts) > 1 and all(parts) else None


def _parts(inner: str) -> list[str] | None:
    """What stands between commas, brackets kept together; None where they close before they open."""
    parts, depth, start = list[str](), 0, 0
    for at, character in enumerate(inner):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return None
        if character == "," and not depth:
            parts.append(inner[start:at].strip())
            start = at + 1
    parts.append(inner[start:].strip())
    return parts


def _lists(said: list[str], wanted: list[str]) -> bool | None:
    """Whether two lists without order, or two sets, hold the same; None where something in them is open, or repeated."""
    if max(len(said), len(wanted)) > _LISTED or any(map(_GROUPED.search, (",".join(said), ",".join(wanted)))):
        return None
    table = [[equal(a, b) for b in wanted] for a in said]
    if any(None in row for row in table):
        return None
    found = [sum(map(bool, line)) for line in (*table, *zip(*table, strict=True))]
    if 0 in found:
        return False
    return True if len(said) == len(wanted) and max(found) == 1 else None


def _equations(answer: str, gold: str) -> bool | None:
    """Whether two equations are the same side by side, or name the same thing by what is not the same; else None."""
    (left, right), (name, value) = answer.split("="), gold.split("=")
    if right.strip() == name.strip():
        left, right = right, left
    same = _compare(right, value)
    if left.strip() == name.strip() and _SYMBOL.fullmatch(name.strip()) and name.strip()[0] not in right + value:
        return same
    return True if same and _compare(left, name) else None


def equal(answer: str, gold: str) -> bool | None:
    """Whether two tidied answers are equal; None where this cannot tell."""
    try:
        with localcontext(Context(prec=_DIGITS)):
            said, wanted = _elements(answer), _elements(gold)
            if said is None and wanted is None:
                return (_equations if answer.count("=") == gold.count("=") == 1 else _compare)(answer, gold)
            if said is None or wanted is None:
                return None
            # Only pairs in brackets have an order; what mixes the two is left to math-verify.
            if {said[0], wanted[0]} <= {"", "{}"}:
                return _lists(said[1], wanted[1])
            if {said[0], wanted[0]} & {"", "{}"}:
                return None
            if said[0] != wanted[0] or len(said[1]) != len(wanted[1]):
                return False
            parts = [_end(a, b) for a, b in zip(said[1], wanted[1], strict=True)]
            return False if False in parts else None if None in parts else True
    except _FAULTS:
        return None
