"""Reads sums and products, with quotients by slashes and products by juxtaposition."""

from fractions import Fraction

from tulu.verifiers.math.atoms import Atoms, number, with_sign
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.tokens import Unreadable
from tulu.verifiers.math.units import ONE, Unit
from tulu.verifiers.math.words import JOINING, is_word

_STOP_MARKS = frozenset(", ; = < > ) ] } \\} | || & \\\\ : + - / ! ^ _ . ? \" ' #".split())
_STOP_COMMANDS = frozenset(
    "le ge ne in notin to equiv approx cup cap setminus pm mp rfloor rceil rangle end Rightarrow lor "
    "land ldots forall exists quad subset "
    "subseteq propto times cdot div bmod pmod over choose not degree circ".split()
)


class Expressions(Atoms):
    """Sums and products."""

    def additive(self) -> Node:
        """A sum of terms."""
        terms = [self._signed()]
        while self.at("+", "-", "pm", "mp"):
            terms.append(self._signed())
        return terms[0] if len(terms) == 1 else ("add", tuple(terms))

    def _signed(self) -> Node:
        sign = None
        while self.at("+", "-", "pm", "mp"):
            text = self.take().text
            mark: Node | None = {"+": None, "-": ("num", Fraction(-1)), "pm": ("pm", 1), "mp": ("pm", -1)}[text]
            if mark is not None:
                sign = mark if sign is None else ("mul", (sign, mark))
        term = self.term()
        if sign is None:
            return term
        if term[0] == "quantity":
            return ("quantity", with_sign(sign, term[1]), term[2])
        return with_sign(sign, term)

    def term(self) -> Node:
        """A product, with quotients by / and by juxtaposition, and with the unit behind it."""
        value = self.factor()
        while True:
            if self.at("cdot", "times", "*", "div", "/", "over", "bmod"):
                value = self._operator(value)
            elif self.at("pmod"):
                return value
            elif value[0] == "deg" and self.peek().kind == "number":
                value = self._minutes(value)
            elif (measure := self.measure_after(value)) is not None:
                value = _measured(value, *measure)
            elif self._continues(value):
                value = _product(value, self._implicit(value))
            else:
                return value

    def _operator(self, value: Node) -> Node:
        operator = self.take().text
        if operator == "over":
            return ("div", value, self.term())
        negative = False
        while self.at("-", "+"):
            negative ^= self.take().text == "-"
        if operator == "bmod":
            return ("big", f"mod {value!r} {self.factor()!r}")
        right = self.factor()
        if operator in ("/", "div"):
            right = self._denominator(right)
        if negative:
            right = with_sign(("num", Fraction(-1)), right)
        return ("div", value, right) if operator in ("/", "div") else _product(value, right, True)

    def _minutes(self, value: Node) -> Node:
        """Degrees with the minutes and seconds behind them: `15^\\circ 30'`."""
        for marks, part in (("'", 60), ("''", 3600)):
            if self.peek().kind != "number":
                break
            count = number(self.take())
            for _ in marks:
                if self.at("^") and self.peek(1).text == "{" and self.peek(2).text == "prime":
                    self.position += 4
                elif self.at("^") and self.peek(1).text == "prime":
                    self.position += 2
                else:
                    self.expect("'")
            value = ("deg", ("add", (value[1], ("div", count, ("num", Fraction(part))))))
        return value

    def _denominator(self, first: Node) -> Node:
        """What a slash divides by: in `t/RC` both letters; in `1/2x` it depends on how the answer is read."""
        while self._continues(first) and not self.unit_ahead():
            is_number = first[0] == "num"
            self.ambiguous = self.ambiguous or is_number
            if is_number and not self.tight:
                break
            first = _product(first, self.factor())
        return first

    def _continues(self, value: Node) -> bool:
        """Whether the next token begins another factor of a product without a sign."""
        token = self.peek()
        if token.kind == "end" or (token.kind == "word" and not self.is_letter_word(token)):
            return False
        if token.kind == "run" and token.text in JOINING and self.depth == 0:
            return False
        if token.kind == "mark":
            if token.text == "[" and self._closes_interval():
                return False
            if token.text in ("|", "||") and not self.bars and value[0] != "quantity":
                return True
            return token.text not in _STOP_MARKS and token.text not in ("*",)
        return not (token.kind == "command" and token.text in _STOP_COMMANDS)

    def _closes_interval(self) -> bool:
        """Whether a bracket closes a French interval, `]1,2[`."""
        following = self.peek(1)
        return following.kind == "end" or following.text in ("cup", "cap", ",", "or", "and", "}", "\\}", "setminus")

    def _implicit(self, value: Node) -> Node:
        """The factor that stands right behind another one."""
        token, before = self.peek(), self.tokens[self.position - 1]
        ends_with_number = before.kind == "number"
        if token.kind == "run" and is_word(token, self.depth):
            raise Unreadable(f"the word {token.text}")
        beside = token.kind == "number" and value[0] != "div" and before.text not in (")", "}")
        if beside and not (value[0] == "num" and ends_with_number and self._mixed_ahead()):
            raise Unreadable("two numbers beside each other")
        if beside:
            numerator, _, denominator = self.take(), self.take(), self.take()
            return ("mixed", ("div", number(numerator), number(denominator)))
        if ends_with_number and value[0] == "num" and value[1].denominator == 1 and token.text == "frac":
            fraction = self.atom()
            if fraction[0] == "div" and all(
                part[0] == "num" and part[1].denominator == 1 and part[1] > 0 for part in fraction[1:]
            ):
                return ("mixed", fraction)
            return self.postfix(fraction)
        return self.factor()

    def _mixed_ahead(self) -> bool:
        """Whether `1/2` follows, as in `2 1/2`."""
        following = [self.peek(ahead) for ahead in range(3)]
        return following[0].spaced and following[1].text == "/" and following[2].kind == "number" and not following[2].spaced


def _product(left: Node, right: Node, explicit: bool = False) -> Node:
    if right[0] == "mixed":
        return ("add", (left, right[1]))
    if "quantity" in (left[0], right[0]):
        raise Unreadable("a unit inside a product")
    factors = (*left[1], right) if left[0] in ("mul", "times") else (left, right)
    return ("times" if explicit or left[0] == "times" else "mul", factors)


def _measured(value: Node, scale: Fraction, unit: Unit) -> Node:
    """A value with the scale and the unit behind it; it may carry a unit already, as in `\\$5 \\text{ million}`."""
    before = ONE
    if value[0] == "quantity":
        value, before = value[1:]
    if scale != 1:
        value = ("scaled", value, scale)
    unit = before.times(unit)
    return ("quantity", value, unit) if unit != ONE else value
