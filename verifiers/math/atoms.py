"""Reads atoms and what stands behind them: numbers, letters, powers, factorials, degrees and percent signs."""

import re
from fractions import Fraction

from tulu.verifiers.math.cursor import Cursor
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.tokens import FUNCTIONS, Token, Unreadable
from tulu.verifiers.math.units import PERCENT, PREFIXED, SYMBOLS, UNITS
from tulu.verifiers.math.words import is_word

BIG_RUNS = frozenset("max min gcd lcm det".split())
"""Runs of letters that are commands without their backslash."""
_APPLIED = frozenset("f g F G".split())
"""Letters that are functions whatever stands in the brackets behind them; others only before a number or one letter."""
_DIGIT = re.compile(r"\d")
_MINUS: Node = ("num", Fraction(-1))


class Atoms(Cursor):
    """Atoms; the sums inside their groups are read by Expressions."""

    def additive(self) -> Node:
        """A sum of terms; expressions.py reads it."""
        raise NotImplementedError

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
        if inner.text in ("th", "st", "nd", "rd", "o", "T", "prime", "t", "h", "r", "*") and inner.kind in (
            "run",
            "letter",
            "word",
            "command",
            "mark",
        ):
            if inner.text in ("T", "prime", "*") or (inner.style == "" and inner.text in "thr"):
                return self._marked(base, brace)
            if inner.kind == "word" or inner.text in ("th", "st", "nd", "rd") or (inner.text == "o" and base[0] == "num"):
                self.position += 3 if brace else 1
                return self._degrees(base) if inner.text == "o" else base
        exponent = self.exponent()
        if base[0] == "sym" and base[1] in _APPLIED and exponent == ("neg", ("num", Fraction(1))) and self.at("("):
            # f^{-1}(x) is the inverse function.
            return self.letter(f"{base[1]}^-1", True)
        return ("pow", base, exponent)

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
            return with_sign(("num", Fraction(-1)), self.exponent()) if negative else self.exponent()
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
        if (text in PREFIXED and self.peek(1).kind == "number") or (text in PREFIXED and self.peek(1).text in (".", "\\$")):
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
            return number(token)
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
        known = name.rstrip("'").removesuffix("^-1") in _APPLIED or name.endswith("'") or name.startswith("f_")
        if known or content[0] in ("group", "cup", "cap", "setminus", "rel") or all(item[0] in ("num", "sym") for item in items):
            if content[0] == "group" and content[1:3] != ("(", ")"):
                raise Unreadable("brackets that do not match")
            return tuple(items)
        self.position = before
        return None

    def command(self, name: str, applies: bool) -> Node:
        """A command with its arguments; commands.py knows them."""
        raise NotImplementedError


def number(token: Token) -> Node:
    """The node of a token that is a number."""
    return ("num", Fraction(token.text))


def with_sign(sign: Node, term: Node) -> Node:
    """A term with a sign in front of it."""
    return ("neg", term) if sign == ("num", Fraction(-1)) else ("mul", (sign, term))
