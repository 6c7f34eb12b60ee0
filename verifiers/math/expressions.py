"""Reads the tokens of an expression into a tree: sums, products, powers, fractions, roots, functions and units.

A node is a tuple of its kind and its parts: ("add", (a, b)), ("mul", (a, b)), ("neg", a), ("div", a, b), ("pow", a, b), ("root", a, n),
("num", 3/2), ("sym", "x_1"), ("const", "pi"), ("call", "sin", a), ("log", base, a), ("apply", "f", (a,)), ("abs", a), ("fact", a),
("binom", n, k), ("deg", a), ("pm", sign), ("big", key) for what is not evaluated, ("quantity", a, unit). statements.py adds lists,
relations, sets and matrices.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from tulu.verifiers.math.tokens import FUNCTIONS, Token, Unreadable
from tulu.verifiers.math.units import ONE, PERCENT, PREFIXED, SYMBOLS, UNITS, Unit
from tulu.verifiers.math.words import JOINING, MeasureReader, is_word

Node = tuple[Any, ...]
_DEEPEST = 20
"""Groups, fractions and roots inside each other."""
BIG_RUNS = frozenset("max min gcd lcm det".split())
_APPLIED = frozenset("f g F G".split())
"""Letters that are functions whatever stands in the brackets behind them; others only before a number or one letter."""
_NEVER = ("end", "")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_STOP_MARKS = frozenset(", ; = < > ) ] } \\} | || & \\\\ : + - / ! ^ _ . ? \" ' #".split())
_STOP_COMMANDS = frozenset(
    "le ge ne in notin to equiv approx cup cap setminus pm mp rfloor rceil rangle end Rightarrow lor land ldots forall exists quad subset "
    "subseteq propto times cdot div bmod pmod over choose not degree circ".split()
)
_DIGIT = re.compile(r"\d")


def children(node: Node) -> Iterator[Node]:
    """The nodes inside a node."""
    for part in node[1:]:
        if isinstance(part, tuple) and part:
            yield from (part,) if isinstance(part[0], str) else (one for one in part if isinstance(one, tuple) and one and isinstance(one[0], str))


def holds(node: Node, kind: str) -> bool:
    """Whether a node of a kind stands somewhere in an expression; `i` is the imaginary unit."""
    return node[0] == kind or (node[0] == "const" and node[1] == kind) or any(holds(child, kind) for child in children(node))


class Expressions(MeasureReader):
    """Recursive descent over the tokens of expressions."""

    def __init__(self, tokens: list[Token], tight: bool = False, plain_units: bool = False) -> None:
        self.tokens, self.position, self.depth = tokens, 0, 0
        self.plain_units = plain_units
        self.tight = tight
        """Whether `1/2x` is 1/(2x); else it is x/2."""
        self.ambiguous = False
        """Whether `tight` made a difference."""
        self.bars = 0
        """How many bars of absolute values and conditions are open."""

    # Tokens.

    def peek(self, ahead: int = 0) -> Token:
        """The token ahead; one of kind end where there is none."""
        position = self.position + ahead
        return self.tokens[position] if position < len(self.tokens) else Token(*_NEVER)

    def take(self) -> Token:
        """The next token, which is consumed."""
        token = self.peek()
        if token.kind == "end":
            raise Unreadable("the end came too early")
        self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these marks or commands."""
        token = self.peek()
        return token.kind in ("mark", "command") and token.text in texts

    def expect(self, text: str) -> None:
        """Consumes a mark or command; Unreadable where another token stands there."""
        if not self.at(text):
            raise Unreadable(f"no {text}")
        self.position += 1

    def enter(self) -> None:
        """One group deeper."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Unreadable("nested too deep")

    # Sums and products.

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
            return ("quantity", _with_sign(sign, term[1]), term[2])
        return _with_sign(sign, term)

    def term(self) -> Node:
        """A product, with quotients by / and by juxtaposition, and with the unit behind it."""
        value = self.factor()
        while True:
            if self.at("cdot", "times", "*", "div", "/", "over", "bmod"):
                value = self._operator(value)
            elif self.at("pmod"):
                return value
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
            right = _with_sign(("num", Fraction(-1)), right)
        return ("div", value, right) if operator in ("/", "div") else _product(value, right, True)

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
            return ("mixed", ("div", _number(numerator), _number(denominator)))
        if ends_with_number and value[0] == "num" and value[1].denominator == 1 and token.text == "frac":
            fraction = self.factor()
            if fraction[0] == "div" and all(part[0] == "num" and part[1].denominator == 1 and part[1] > 0 for part in fraction[1:]):
                return ("mixed", fraction)
            return fraction
        return self.factor()

    def _mixed_ahead(self) -> bool:
        """Whether `1/2` follows, as in `2 1/2`."""
        following = [self.peek(ahead) for ahead in range(3)]
        return following[0].spaced and following[1].text == "/" and following[2].kind == "number" and not following[2].spaced

    # Powers and what stands behind an atom.

    def factor(self) -> Node:
        """An atom with its powers, factorials, degrees and percent signs."""
        return self.postfix(self.atom())

    def postfix(self, base: Node) -> Node:
        """What stands behind an atom."""
        while True:
            token = self.peek()
            if self.at("^"):
                base = self._power(base)
            elif self.at("!"):
                self.take()
                base = ("fact", base)
            elif self.at("degree", "circ"):
                self.take()
                base = self._degrees(base)
            elif self.at("%", "permil"):
                base = ("quantity", base, PERCENT) if self.take().text == "%" else ("div", base, ("num", Fraction(1000)))
            elif self.at("_") and base[0] in ("num", "group"):
                self.take()
                base = ("based", base, self.subscript())
            elif token.kind == "mark" and token.text == "'" and base[0] in ("sym", "call", "apply"):
                self.take()
                base = ("sym", f"{base[1]}'") if base[0] == "sym" else ("big", f"derivative {base!r}")
            else:
                return base

    def _power(self, base: Node) -> Node:
        self.take()
        brace = self.at("{")
        if self.at("circ", "degree") or (brace and self.peek(1).text in ("circ", "degree") and self.peek(2).text == "}"):
            self.position += 3 if brace else 1
            return self._degrees(base)
        inner = self.peek(1) if brace else self.peek()
        if inner.text in ("th", "st", "nd", "rd", "o", "T", "prime", "t", "h", "r", "*") and inner.kind in ("run", "letter", "word", "command", "mark"):
            if inner.text in ("T", "prime", "*") or inner.style == "" and inner.text in "thr":
                return self._marked(base, brace)
            if inner.kind == "word" or inner.text in ("th", "st", "nd", "rd") or (inner.text == "o" and base[0] == "num"):
                self.position += 3 if brace else 1
                return self._degrees(base) if inner.text == "o" else base
        return ("pow", base, self.exponent())

    def _marked(self, base: Node, brace: bool) -> Node:
        if base[0] == "sym" and self.peek(1 if brace else 0).text in ("prime", "*", "T"):
            text = self.peek(1 if brace else 0).text
            self.position += 3 if brace else 1
            return ("sym", base[1] + ("'" if text == "prime" else f"^{text}"))
        return ("pow", base, self.exponent())

    def exponent(self) -> Node:
        """What a caret raises to: a group, a whole number, or one letter or command."""
        if self.at("{", "("):
            return self.postfix(self.atom()) if self.at("(") else self.group()
        if self.at("-", "+"):
            negative = self.take().text == "-"
            return _with_sign(("num", Fraction(-1)), self.exponent()) if negative else self.exponent()
        self._split_run()
        return self.atom(applies=False)

    def _degrees(self, base: Node) -> Node:
        token = self.peek()
        if token.text in ("C", "F") and token.kind in ("letter", "word"):
            self.take()
            return ("quantity", base, UNITS["celsius" if token.text == "C" else "fahrenheit"])
        return ("deg", base)

    def subscript(self) -> str:
        """A subscript as text, without styles and spaces."""
        if not self.at("{"):
            return self.take().text
        depth, texts = 0, list[str]()
        while True:
            token = self.take()
            depth += (token.text == "{") - (token.text == "}")
            if not depth:
                return "".join(texts[1:])
            texts.append(token.text)

    # Atoms.

    def _split_run(self) -> None:
        """Replaces a run of letters by its letters."""
        token = self.peek()
        if token.kind == "run":
            letters = [Token("letter", letter, False, token.style) for letter in token.text]
            letters[0] = letters[0]._replace(spaced=token.spaced)
            self.tokens[self.position : self.position + 1] = letters

    def group(self) -> Node:
        """The content of braces."""
        self.expect("{")
        self.enter()
        node = self.statement_in_group("}")
        self.expect("}")
        self.depth -= 1
        return node

    def statement_in_group(self, closing: str) -> Node:
        """What braces hold; statements.py reads more than sums."""
        del closing
        return self.additive()

    def argument(self) -> Node:
        """An argument of a command: a group, one digit, one letter, or one command with its own arguments."""
        if self.at("{"):
            return self.group()
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1:
            # TeX takes one digit: \frac12 is a half.
            self.tokens[self.position] = token._replace(text=token.text[1:], spaced=False)
            if not _DIGIT.match(token.text[0]):
                raise Unreadable("a decimal without braces")
            return ("num", Fraction(token.text[0]))
        self._split_run()
        return self.atom(applies=False)

    def atom(self, applies: bool = True) -> Node:
        """A number, a letter, a bracket or a command with its arguments."""
        token = self.peek()
        if token.kind == "run":
            if named := self._named_run(token):
                return named
            self._split_run()
        token = self.take()
        if token.kind == "number":
            return self._repeating(token)
        if token.kind in ("letter", "word"):
            if token.text in PREFIXED and self._number_ahead():
                return ("quantity", self.factor(), UNITS[PREFIXED[token.text]])
            if token.kind == "word" and not self.is_letter_word(token):
                raise Unreadable(f"the word {token.text}")
            return self.letter(token.text, applies)
        if token.kind == "command":
            return self.command(token.text, applies)
        if token.text in PREFIXED or token.text in SYMBOLS:
            return ("quantity", self.factor(), UNITS[PREFIXED.get(token.text) or SYMBOLS[token.text]])
        return self.bracket(token.text)

    def _named_run(self, token: Token) -> Node | None:
        """The node of a run such as `pi`, `sqrt(2)`, `sin x` or `cosx`; None where it is none of these."""
        text = token.text
        if text in FUNCTIONS or text in BIG_RUNS or text in ("sqrt", "pi", "infinity", "oo"):
            self.take()
            return self.command({"infinity": "infty", "oo": "infty", "sqrt": "surd"}.get(text, text), True)
        if text in PREFIXED and self.peek(1).kind == "number" or (text in PREFIXED and self.peek(1).text in (".", "\\$")):
            self.take()
            if not self._number_ahead():
                raise Unreadable(f"{text} without a number")
            return ("quantity", self.factor(), UNITS[PREFIXED[text]])
        for name in ("sin", "cos", "tan", "ln", "log"):
            if text.startswith(name) and len(text) == len(name) + 1:
                self.tokens[self.position : self.position + 1] = [Token("command", name), Token("letter", text[-1])]
                return self.factor()
        if is_word(token, self.depth):
            raise Unreadable(f"the word {text}")
        return None

    def _number_ahead(self) -> bool:
        """Whether a number follows a currency, whose full stop or dollar sign is consumed: `Rs. 500`, `US\\$5`."""
        if self.at(".", "\\$") and self.peek(1).kind == "number":
            self.take()
        return self.peek().kind == "number"

    def bracket(self, text: str) -> Node:
        """A bracket with one expression; statements.py reads the others."""
        if text == "{":
            self.position -= 1
            return self.group()
        raise Unreadable(f"a {text} where a value should stand")

    def _repeating(self, token: Token) -> Node:
        """A number, whose decimals may repeat: 0.1\\overline{6}."""
        if len(token.text) > 400:
            raise Unreadable("a number of many digits")
        if not (self.peek().text == "overline" and "." in token.text) and not (self.at(".") and self.peek(1).text == "overline"):
            return _number(token)
        whole, _, start = token.text.partition(".")
        self.position += 2 if self.at(".") else 1
        period = self.argument()
        if period[0] != "num" or period[1].denominator != 1:
            raise Unreadable("a period that is no number")
        # Its zeros in front count too, so the length comes from the token.
        digits = self.tokens[self.position - (2 if self.tokens[self.position - 1].text == "}" else 1)].text
        digits = digits if digits.isdigit() else str(period[1])
        value = Fraction(int(whole or "0") * 10 ** len(start) + int(start or "0"))
        value = (value + Fraction(int(digits), 10 ** len(digits) - 1)) / 10 ** len(start)
        return ("num", value)

    def letter(self, name: str, applies: bool) -> Node:
        """A letter with subscript and primes, or the function that it names with its arguments."""
        if self.at("_"):
            self.take()
            name += f"_{self.subscript()}"
        if name in ("e", "i"):
            return ("const", name)
        while self.at("'"):
            self.take()
            name += "'"
        if applies and self.at("(") and (arguments := self._arguments(name)) is not None:
            return ("apply", name, arguments)
        return ("sym", name)

    def _arguments(self, name: str) -> tuple[Node, ...] | None:
        """The arguments of a function; None where the bracket behind a letter is a factor, as in x(x+1)."""
        before = self.position
        self.take()
        content = self.bracket("(")
        items = content[3] if content[0] == "group" else (content,)
        known = name.rstrip("'") in _APPLIED or name.endswith("'") or name.startswith("f_")
        if known or content[0] in ("group", "cup", "cap", "setminus", "rel") or all(item[0] in ("num", "sym") for item in items):
            if content[0] == "group" and content[1:3] != ("(", ")"):
                raise Unreadable("brackets that do not match")
            return tuple(items)
        self.position = before
        return None

    def command(self, name: str, applies: bool) -> Node:
        """A command with its arguments; commands.py knows them."""
        raise NotImplementedError


def _number(token: Token) -> Node:
    return ("num", Fraction(token.text))


def _with_sign(sign: Node, term: Node) -> Node:
    return ("neg", term) if sign == ("num", Fraction(-1)) else ("mul", (sign, term))


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
