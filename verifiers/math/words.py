"""Reads what stands behind a number: units, words that multiply it, and nouns of things counted."""

from fractions import Fraction
from typing import Any

from tulu.verifiers.math.tokens import FUNCTIONS, Token
from tulu.verifiers.math.units import NO_NOUNS, ONE, SCALES, SYMBOLS, UNITS, UNSPACED, Unit, noun

_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_GLUED = frozenset("cm km mm kg ft hr lb oz mph".split())
"""Units of two letters that may stand right behind a number in plain letters: `15cm`, where `15mg` is a product."""
_PREFIXES = {"k": Fraction(1000), "M": Fraction(10**6), "m": Fraction(1, 1000)}
JOINING = frozenset("and or if for where when with given provided".split())
"""Words that go on with the list or the sentence, and belong to no noun."""
_VOWELS = frozenset("aeiouyAEIOU")


def is_word(token: Token, depth: int) -> bool:
    """Whether a run of letters is a word and no product: `cats`, but neither `abc`, `xyz`, `nRT` nor `mgh`."""
    text = token.text
    if depth or not token.spaced or len(text) < 3 or not (text.islower() or text.istitle()) or text in FUNCTIONS:
        return False
    letters = text.lower()
    return bool(_VOWELS & set(letters)) and any(a >= b for a, b in zip(letters, letters[1:], strict=False))


class MeasureReader:
    """The part of the parser that reads units."""

    tokens: list[Token]
    position: int
    depth: int
    plain_units: bool
    """Whether a plain letter behind a number and a space is a unit: `5 m`."""
    unit_letters = False
    """Whether `plain_units` made a difference."""

    def peek(self, ahead: int = 0) -> Token:
        raise NotImplementedError

    def is_letter_word(self, token: Token) -> bool:
        """Whether a word of text is a letter of a formula: `3\\text{x}`."""
        return len(token.text) == 1 and token.text.isascii()

    def measure_after(self, value: tuple[Any, ...]) -> tuple[Fraction, Unit] | None:
        """The scale and the unit that stand behind a value, which are consumed; None, and nothing consumed, where none do."""
        start = self.position
        measure = self._measure(value)
        if measure is None:
            self.position = start
        return measure

    def unit_ahead(self) -> bool:
        """Whether a unit stands next."""
        start = self.position
        ahead = self._unit_word(True) is not None
        self.position = start
        return ahead

    def _measure(self, value: tuple[Any, ...]) -> tuple[Fraction, Unit] | None:
        token = self.peek()
        if token.kind == "end" or (value[0] in ("sym", "const") and token.style != "text"):
            return None
        if self._texts(("(",)) and self.peek(1).kind in ("word", "run"):
            # 12 (apples)
            self.position += 1
            self.tokens[self.position] = self.peek()._replace(kind="word", style="text")
            measure = self._measure(value)
            if measure is None or not self._texts((")",)):
                return None
            self.position += 1
            return measure
        if value[0] == "num" and token.kind in ("word", "run") and token.text in ("st", "nd", "rd", "th"):
            self.position += 1
            return Fraction(1), ONE
        scale = Fraction(1)
        while self.peek().kind in ("word", "run") and self.peek().text in SCALES and (self.peek().style or self.depth == 0):
            scale *= SCALES[self.peek().text]
            self.position += 1
        unit = self._unit_product()
        words = self._words()
        if unit is not None:
            # 5 feet tall
            return (scale, unit) if not words or noun(tuple(words)) is not None else None
        if words:
            counted = noun(tuple(words))
            return None if counted is None else (scale, counted)
        return None if scale == 1 else (scale, ONE)

    def _texts(self, texts: tuple[str, ...]) -> bool:
        return self.peek().kind in ("mark", "command") and self.peek().text in texts

    def _words(self) -> list[str]:
        """The words that stand next, which are consumed."""
        words = list[str]()
        while True:
            token = self.peek()
            if token.text.lower() in JOINING:
                return words
            is_text = token.kind == "word" and not (len(token.text) == 1 and token.text.isascii() and not words)
            plain = (
                token.kind == "run"
                and self.depth == 0
                and token.spaced
                and (is_word(token, 0) or bool(words) or token.text in NO_NOUNS)
            )
            if not (is_text or plain):
                return words
            words.append(token.text)
            self.position += 1

    def _unit_product(self) -> Unit | None:
        """A product of units: `m/s^2`, `N\\cdot m`, `square feet`, `\\frac{m}{s}`, `miles per hour`."""
        if self._texts(("frac",)) and (fraction := self._unit_fraction()) is not None:
            return fraction
        product = self._unit_power(True)
        while product is not None:
            before = self.position
            divides = self._texts(("/",)) or (self.peek().kind in ("word", "run") and self.peek().text == "per")
            if divides or self._texts(("cdot", "times", "*", ".")):
                self.position += 1
            factor = self._unit_power(False)
            if factor is None:
                self.position = before + (self.tokens[before].text == "." if before < len(self.tokens) else 0)
                return product
            product = product.times(factor, -1 if divides else 1)
        return None

    def _unit_fraction(self) -> Unit | None:
        start = self.position
        self.position += 1
        parts = list[Unit]()
        for _ in range(2):
            if not self._texts(("{",)):
                break
            self.position += 1
            unit = self._unit_product()
            if unit is None or not self._texts(("}",)):
                break
            parts.append(unit)
            self.position += 1
        if len(parts) == 2:
            return parts[0].times(parts[1], -1)
        self.position = start
        return None

    def _unit_power(self, first: bool) -> Unit | None:
        power = 1
        if self.peek().kind in ("word", "run") and self.peek().text in _POWERS:
            power = _POWERS[self.peek().text]
            self.position += 1
            self.position += self._texts((".",))
        unit = self._unit_word(first and power == 1)
        if unit is None:
            return None
        if self._texts(("^",)):
            self.position += 1
            brace = self._texts(("{",))
            self.position += brace
            negative = self._texts(("-",))
            self.position += negative
            exponent = self.peek()
            if exponent.kind != "number" or not exponent.text.isdigit() or len(exponent.text) > 1:
                return None
            power *= -int(exponent.text) if negative else int(exponent.text)
            self.position += 1 + brace
        return ONE.times(unit, power)

    def _unit_word(self, first: bool) -> Unit | None:
        token = self.peek()
        text = token.text
        if (token.kind == "mark" and text in SYMBOLS) or (token.kind == "command" and text == "AA"):
            self.position += 1
            return UNITS[SYMBOLS.get(text, text)]
        if prefixed := self._greek_unit():
            return prefixed
        if token.kind == "command" and text in ("degree", "circ", "$"):
            return None
        if token.kind not in ("word", "run", "letter") or text not in UNITS:
            return None
        if len(text) == 1 and text.isascii() and not token.style:
            # 5 m may be five metres or a product, so it is read in both ways.
            possible = self.depth == 0 and text in UNSPACED and (token.spaced or not first)
            self.unit_letters = self.unit_letters or possible
            known = possible and self.plain_units
        elif len(text) == 1 and text.isascii():
            known = bool(token.style) and (token.spaced or text in UNSPACED or not first)
        elif token.style:
            known = True
        else:
            known = self.depth == 0 and (token.spaced or len(text) > 2 or text in _GLUED)
        if not known:
            return None
        self.position += 1
        return UNITS[text]

    def _greek_unit(self) -> Unit | None:
        """`\\mathrm{k}\\Omega`, `\\mu\\mathrm{m}`, and Omega alone, which may be a letter and so is read in both ways."""
        token, following = self.peek(), self.peek(1)
        if token.style == "roman" and token.text in _PREFIXES and following.kind == "command" and following.text == "Omega":
            self.position += 2
            return Unit(UNITS["ohm"].dimension, _PREFIXES[token.text])
        if token.kind == "command" and token.text == "mu" and following.style and following.text in ("m", "s", "g"):
            self.position += 2
            return Unit(UNITS[following.text].dimension, UNITS[following.text].factor / 1_000_000)
        if token.kind == "command" and token.text == "Omega":
            self.unit_letters = True
            self.position += self.plain_units
            return UNITS["ohm"] if self.plain_units else None
        return None
