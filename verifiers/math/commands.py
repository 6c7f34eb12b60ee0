"""Reads commands with their arguments: fractions, roots, functions, logarithms, constants and what is not evaluated."""

from fractions import Fraction

from tulu.verifiers.math.expressions import Expressions
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.tokens import FUNCTIONS, Unreadable
from tulu.verifiers.math.units import PREFIXED, UNITS

GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar partial nabla imath jmath aleph Re Im".split()
)
BIG = frozenset("sum prod int iint iiint oint lim limsup liminf max min gcd lcm det sup inf dim ker arg sgn Pr Var Cov".split())
"""Commands that leave the work undone; the same command with the same arguments equals itself, and nothing else."""
_ACCENTS = frozenset("vec hat tilde overline overparen wideparen".split())
_FIGURES = frozenset("angle triangle odot".split())
_INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_SYNONYMS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "sh": "sinh", "ch": "cosh", "th": "tanh"}
_ROUNDED = {"lfloor": ("rfloor", "floor"), "lceil": ("rceil", "ceil")}


class Commands(Expressions):
    """The commands of a formula."""

    def command(self, name: str, applies: bool) -> Node:
        """A command, already taken, with its arguments."""
        if name == "frac":
            return self._fraction()
        if name in ("sqrt", "surd", "cbrt"):
            return self._root(name)
        if name == "binom":
            return ("binom", self.argument(), self.argument())
        if name == "pi":
            return ("const", "pi")
        if name in ("infty", "e"):
            return ("const", "inf" if name == "infty" else "e")
        if name in FUNCTIONS or name in _SYNONYMS:
            return self._function(_SYNONYMS.get(name, name))
        if name in PREFIXED:
            return ("quantity", self.factor(), UNITS[PREFIXED[name]])
        if name in GREEK:
            return self.letter(f"\\{name}", applies)
        if name in _ROUNDED:
            return self._rounded(*_ROUNDED[name])
        if name in BIG or name == "bmod":
            return self._big(name)
        if name in _FIGURES and self.peek().kind in ("letter", "run"):
            points = self.take().text
            while self.peek().kind == "letter":
                points += self.take().text
            return ("sym", f"{name} {points}")
        if name in _ACCENTS:
            return ("sym", f"{name} {self.argument()!r}") if not self.at("_") else ("sym", name)
        if name == "mathbb":
            return ("set of", self.subscript())
        if name == "emptyset":
            return ("set", ())
        if name == "ldots":
            return ("dots",)
        if name == "pm":
            return ("pm", 1)
        if name in ("langle", "begin"):
            return self.environment(name)
        raise Unreadable(f"the command \\{name}")

    def environment(self, name: str) -> Node:
        """A matrix or cases; statements.py reads them."""
        raise Unreadable(name)

    def _fraction(self) -> Node:
        self.enter()
        numerator = self.argument()
        denominator = self.argument()
        self.depth -= 1
        if "quantity" in (numerator[0], denominator[0]):
            raise Unreadable("a unit inside a fraction")
        return ("div", numerator, denominator)

    def _root(self, name: str) -> Node:
        degree: Node = ("num", Fraction(3 if name == "cbrt" else 2))
        if name == "sqrt" and self.at("["):
            self.take()
            degree = self.additive()
            self.expect("]")
        self.enter()
        radicand = self.atom() if name == "surd" else self.argument()
        self.depth -= 1
        return ("root", radicand, degree)

    def _rounded(self, closing: str, kind: str) -> Node:
        self.enter()
        node = self.additive()
        self.expect(closing)
        self.depth -= 1
        return (kind, node)

    def _function(self, name: str) -> Node:
        """A function with its argument: `\\sin^2 x`, `\\log_2 8`, `\\ln(x+1)`; without brackets it takes a whole product."""
        power, base = None, None
        while self.at("^", "_"):
            if self.take().text == "^":
                power = self.exponent()
            else:
                base = self._base()
        if power == ("neg", ("num", Fraction(1))):
            if name not in _INVERSE:
                raise Unreadable(f"the inverse of {name}")
            name, power = _INVERSE[name], None
        self.enter()
        argument = self._function_argument()
        self.depth -= 1
        if base is not None and name != "log":
            raise Unreadable(f"{name} with a subscript")
        if name in ("log", "lg"):
            node: Node = ("log", ("num", Fraction(10)) if name == "lg" else base, argument)
        else:
            node = ("call", name, argument)
        return node if power is None else ("pow", node, power)

    def _base(self) -> Node:
        """The base of a logarithm; in `\\log_28` it is 2, in `\\log_10 2` it is 10."""
        following = self.peek(1)
        if self.peek().kind == "number" and following.kind != "end" and (following.spaced or following.text in ("(", "{")):
            return self.atom()
        return self.argument()

    def _function_argument(self) -> Node:
        if self.at("(", "[", "{", "|"):
            return self.atom()
        negative = False
        while self.at("-", "+"):
            negative ^= self.take().text == "-"
        node = self.factor()
        while self._argument_goes_on(node):
            right = self.factor()
            node = ("mul", (node, right))
        if self.at("/") and node[0] in ("const", "num", "mul") and self.peek(1).kind == "number":
            # \sin \pi/3 is the sine of a third of pi.
            self.take()
            node = ("div", node, self.factor())
        return ("neg", node) if negative else node

    def _argument_goes_on(self, node: Node) -> bool:
        token = self.peek()
        if token.kind == "number":
            return False
        if token.kind == "letter" or (token.kind == "run" and token.text not in FUNCTIONS and not token.spaced):
            return True
        if token.kind == "command":
            return token.text in GREEK or token.text in ("pi", "sqrt") or (token.text == "frac" and node[0] != "num")
        return node[0] == "num" and self.at("(")

    def _big(self, name: str) -> Node:
        """What is not evaluated, such as a sum or a limit: a name of its own, made of all tokens up to the end of the product."""
        parts, depth = [name], 0
        while (token := self.peek()).kind != "end":
            opens, closes = token.text in ("(", "[", "{", "\\{"), token.text in (")", "]", "}", "\\}")
            if not depth and (closes or token.text in ("=", ",", "<", ">", "le", "ge", "&", "\\\\", ";", "in")):
                break
            if (
                not depth
                and parts[-1] not in ("^", "_", "to", name)
                and token.text in ("+", "-")
                and name not in ("int", "sum", "lim")
            ):
                break
            depth += opens - closes
            parts.append(token.text)
            self.position += 1
        return ("big", " ".join(parts))
