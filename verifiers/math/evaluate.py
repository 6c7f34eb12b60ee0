"""The value of an expression where its letters stand for fixed numbers: an exact fraction as long as it can be, else a ball."""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from tulu.verifiers.math import balls
from tulu.verifiers.math.balls import Ball, TooLarge, Undefined, Unsure
from tulu.verifiers.math.nodes import Node
from tulu.verifiers.math.roots import exact_root

Value = Fraction | Ball
_LARGEST_POWER = 10_000
_LARGEST_FACTORIAL = 10_000
_LARGEST_FRACTION = 200_000
"""Bits of a fraction that is still computed exactly."""
_HALF = Fraction(1, 2)


class NotANumber(Exception):
    """A node that has no value, such as a set."""


class Evaluator:
    """Computes nodes at one point, with one precision."""

    def __init__(self, point: Callable[[str], Fraction], prec: int, principal: bool, base: Value | None, work: int) -> None:
        self._point, self._prec, self._principal, self._base, self._work = point, prec, principal, base, work
        # `principal`: roots and logarithms of negative numbers have their complex values; else they have none.

    def value(self, node: Node) -> Value:
        """The value of a node; Undefined, Unsure, TooLarge or NotANumber where there is none."""
        method = _METHODS.get(node[0])
        if method is None:
            raise NotANumber(node[0])
        self._work -= 1
        if self._work < 0:
            raise TooLarge("takes too long")
        return method(self, node)

    def _ball(self, value: Value) -> Ball:
        return balls.of_fraction(value, self._prec) if isinstance(value, Fraction) else value

    def _num(self, node: Node) -> Value:
        value: Fraction = node[1]
        return value

    def _sym(self, node: Node) -> Value:
        return self._point(node[1])

    def _const(self, node: Node) -> Value:
        if node[1] == "pi":
            return balls.pi(self._prec)
        if node[1] == "e":
            return balls.exponential(balls.of_fraction(Fraction(1), self._prec), self._prec)
        if node[1] == "i":
            return Ball(balls.of_fraction(Fraction(0), 2).re, balls.of_fraction(Fraction(1), 2).re)
        raise Undefined("infinity")

    def _add(self, node: Node) -> Value:
        total = self.value(node[1][0])
        for part in node[1][1:]:
            total = self._plus(total, self.value(part))
        return total

    def _plus(self, a: Value, b: Value) -> Value:
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return _small(a + b)
        return balls.checked(balls.add(self._ball(a), self._ball(b), self._prec))

    def _neg(self, node: Node) -> Value:
        value = self.value(node[1])
        return -value if isinstance(value, Fraction) else balls.negative(value)

    def _mul(self, node: Node) -> Value:
        product = self.value(node[1][0])
        for part in node[1][1:]:
            product = self._times(product, self.value(part))
        return product

    def _times(self, a: Value, b: Value) -> Value:
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return _small(a * b)
        if a == 0 or b == 0:
            return Fraction(0)
        return balls.checked(balls.multiply(self._ball(a), self._ball(b), self._prec))

    def _scaled(self, node: Node) -> Value:
        return self._times(self.value(node[1]), node[2])

    def _div(self, node: Node) -> Value:
        return self.over(self.value(node[1]), self.value(node[2]))

    def over(self, a: Value, b: Value) -> Value:
        """a / b"""
        if isinstance(b, Fraction):
            if not b:
                raise Undefined("division by zero")
            if isinstance(a, Fraction):
                return _small(a / b)
        return balls.checked(balls.divide(self._ball(a), self._ball(b), self._prec))

    def _mixed(self, node: Node) -> Value:
        return self.value(node[1])

    def _deg(self, node: Node) -> Value:
        return self._times(self.value(node[1]), balls.divide(balls.pi(self._prec), self._ball(Fraction(180)), self._prec))

    def _quantity(self, node: Node) -> Value:
        if dict(node[2].dimension) == {"percent": 1}:
            return self.over(self.value(node[1]), Fraction(100))
        raise NotANumber("a unit inside an expression")

    # Powers.

    def _pow(self, node: Node) -> Value:
        if node[1] == ("const", "e"):
            return self._exponential(self.value(node[2]))
        return self._power(self.value(node[1]), self.value(node[2]))

    def _root(self, node: Node) -> Value:
        radicand, degree = self.value(node[1]), self.value(node[2])
        if not isinstance(degree, Fraction) or degree.denominator != 1 or degree < 2:
            return self._power(radicand, self.over(Fraction(1), degree))
        if degree % 2 and self._sign(radicand) == -1:
            return self._times(Fraction(-1), self._power(self._times(Fraction(-1), radicand), 1 / degree))
        return self._power(radicand, 1 / degree)

    def _sign(self, value: Value) -> int | None:
        if isinstance(value, Fraction):
            return (value > 0) - (value < 0)
        return balls.sign(value.re) if value.is_real else None

    def _power(self, base: Value, exponent: Value) -> Value:
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._integer_power(base, int(exponent))
        sign = self._sign(base)
        if sign == 0:
            if self._sign(exponent) == 1:
                return Fraction(0)
            raise Undefined("a power of zero")
        if isinstance(exponent, Fraction):
            if isinstance(base, Fraction) and (exact := exact_root(base, exponent)) is not None:
                return exact
            if sign == -1 and exponent.denominator % 2 and not self._principal:
                size = self._power(self._times(Fraction(-1), base), exponent)
                return self._times(Fraction((-1) ** (exponent.numerator % 2)), size)
            if exponent == _HALF and sign == 1:
                return balls.square_root(self._ball(base), self._prec)
        if sign == -1 and not self._principal:
            raise Undefined("a root of a negative number")
        if sign is None and isinstance(base, Ball) and base.is_real:
            raise Unsure
        return self._exponential(self._times(exponent, self._logarithm(base)))

    def _integer_power(self, base: Value, exponent: int) -> Value:
        if isinstance(base, Fraction):
            if not base and exponent <= 0:
                raise Undefined("a power of zero")
            bits = base.numerator.bit_length() + base.denominator.bit_length()
            if abs(base) in (0, 1) or (bits * abs(exponent) <= _LARGEST_FRACTION and abs(exponent) <= _LARGEST_POWER):
                self._work -= bits * abs(exponent) // 1000
                return base ** (exponent if abs(base) not in (0, 1) else exponent % 2 or 2)
        if abs(exponent) > _LARGEST_POWER:
            raise TooLarge("power too large")
        if isinstance(base, Ball) and not base.is_real and exponent == 0 and balls.holds_zero(base):
            raise Unsure
        return balls.checked(balls.integer_power(self._ball(base), exponent, self._prec))

    def _exponential(self, exponent: Value) -> Value:
        if exponent == 0:
            return Fraction(1)
        self._pay()
        return balls.checked(balls.exponential(self._ball(exponent), self._prec))

    def _logarithm(self, value: Value) -> Value:
        if value == 1:
            return Fraction(0)
        sign = self._sign(value)
        if sign == 0:
            raise Undefined("logarithm of zero")
        if sign == -1 and not self._principal:
            raise Undefined("logarithm of a negative number")
        self._pay()
        return balls.checked(balls.logarithm(self._ball(value), self._prec))

    def _pay(self) -> None:
        """What a transcendental function costs."""
        self._work -= 10 + self._prec // 20

    # Functions.

    def _call(self, node: Node) -> Value:
        value = self.value(node[2])
        if node[1] == "ln":
            return self._logarithm(value)
        if node[1] == "exp":
            return self._exponential(value)
        self._pay()
        return _CALLS[node[1]](self, value, node[1])

    def _log(self, node: Node) -> Value:
        value = self._logarithm(self.value(node[2]))
        base = self.value(node[1]) if node[1] is not None else self._base
        if base is None:
            return value
        exact = self._exact_log(base, node[2])
        return exact if exact is not None else self.over(value, self._logarithm(base))

    def _exact_log(self, base: Value, node: Node) -> Fraction | None:
        """log_2 8 is exactly 3."""
        value = self.value(node)
        if isinstance(base, Fraction) and isinstance(value, Fraction) and base > 1 and value > 0:
            guess = round(
                (math.log(value.numerator) - math.log(value.denominator))
                / (math.log(base.numerator) - math.log(base.denominator))
            )
            if abs(guess) < 2000 and base**guess == value:
                return Fraction(guess)
        return None

    def _trigonometric(self, value: Value, name: str) -> Value:
        cosine, sine = balls.cosine_sine(self._ball(value), self._prec)
        if value == 0:
            cosine, sine = self._ball(Fraction(1)), self._ball(Fraction(0))
        one = self._ball(Fraction(1))
        top, bottom = {
            "sin": (sine, one), "cos": (cosine, one), "tan": (sine, cosine),
            "cot": (cosine, sine), "sec": (one, cosine), "csc": (one, sine),
        }[name]  # fmt: skip
        return top if bottom is one else balls.checked(balls.divide(top, bottom, self._prec))

    def _hyperbolic(self, value: Value, name: str) -> Value:
        grows, falls = self._exponential(value), self._exponential(self._times(Fraction(-1), value))
        sine = self.over(self._plus(grows, self._times(Fraction(-1), falls)), Fraction(2))
        cosine = self.over(self._plus(grows, falls), Fraction(2))
        one = Fraction(1)
        top, bottom = {
            "sinh": (sine, one), "cosh": (cosine, one), "tanh": (sine, cosine),
            "coth": (cosine, sine), "sech": (one, cosine), "csch": (one, sine),
        }[name]  # fmt: skip
        return self.over(top, bottom)

    def _inverse(self, value: Value, name: str) -> Value:
        half_pi = balls.divide(balls.pi(self._prec), self._ball(Fraction(2)), self._prec)
        if name == "arctan":
            return Fraction(0) if value == 0 else balls.arctangent(self._ball(value), self._prec)
        if name == "arccot":
            return self._plus(half_pi, self._times(Fraction(-1), self._inverse(value, "arctan")))
        if name == "arccos":
            return self._plus(half_pi, self._times(Fraction(-1), self._inverse(value, "arcsin")))
        rest = self._plus(Fraction(1), self._times(Fraction(-1), self._times(value, value)))
        sign = self._sign(rest)
        if sign == -1:
            raise Undefined("arcsin beyond 1")
        if sign == 0:
            return half_pi if value == 1 else balls.negative(half_pi)
        return self._inverse(self.over(value, self._power(rest, _HALF)), "arctan")

    def _abs(self, node: Node) -> Value:
        value = self.value(node[1])
        return abs(value) if isinstance(value, Fraction) else balls.absolute(value, self._prec)

    def _floor(self, node: Node) -> Value:
        return self._whole(self.value(node[1]))

    def _ceil(self, node: Node) -> Value:
        return -self._whole(self._times(Fraction(-1), self.value(node[1])))

    def _whole(self, value: Value) -> Fraction:
        whole = math.floor(value) if isinstance(value, Fraction) else balls.floor_of(value)
        if whole is None:
            raise Unsure
        return Fraction(whole)

    def _fact(self, node: Node) -> Value:
        value = self.value(node[1])
        if not isinstance(value, Fraction) or value.denominator != 1 or value < 0:
            raise Undefined("factorial of what is no natural number")
        if value > _LARGEST_FACTORIAL:
            raise TooLarge("factorial too large")
        self._work -= int(value) // 5
        return Fraction(math.factorial(int(value)))

    def _binom(self, node: Node) -> Value:
        n, k = self.value(node[1]), self.value(node[2])
        if not isinstance(k, Fraction) or k.denominator != 1 or not 0 <= k <= _LARGEST_FACTORIAL:
            raise Undefined("binomial coefficient of what is no natural number")
        if isinstance(n, Fraction) and n.denominator == 1 and 0 <= n <= _LARGEST_FACTORIAL:
            self._work -= int(n) // 5
            return Fraction(math.comb(int(n), int(k)))
        if k > 20:
            raise TooLarge("binomial coefficient too large")
        product: Value = Fraction(1)
        for step in range(int(k)):
            product = self.over(self._times(product, self._plus(n, Fraction(-step))), Fraction(step + 1))
        return product

    def _apply(self, node: Node) -> Value:
        """A function of which only the name is known: some rational function that depends on the name."""
        total: Value = self._point(f"{node[1]}()")
        for number, argument in enumerate(node[2]):
            value = self.value(argument)
            first, second, third = (self._point(f"{node[1]} {number} {part}") for part in range(3))
            total = self._plus(total, self._times(first, value))
            total = self._plus(total, self.over(second, self._plus(self._times(value, value), third * third + 1)))
        return total

    def _big(self, node: Node) -> Value:
        return self._point(f"big {node[1]}")


def _small(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > 2 * _LARGEST_FRACTION:
        raise TooLarge("fraction too large")
    return value


_KINDS = "num sym const add neg mul div mixed deg quantity scaled pow root call log abs floor ceil fact binom apply big".split()
_METHODS: Mapping[str, Callable[[Evaluator, Node], Value]] = {name: getattr(Evaluator, f"_{name}") for name in _KINDS}
_METHODS = {**_METHODS, "times": _METHODS["mul"]}
_CALLS: Mapping[str, Callable[[Evaluator, Value, str], Value]] = {
    **dict.fromkeys("sin cos tan cot sec csc".split(), Evaluator._trigonometric),
    **dict.fromkeys("sinh cosh tanh coth sech csch".split(), Evaluator._hyperbolic),
    **dict.fromkeys("arcsin arccos arctan arccot".split(), Evaluator._inverse),
}
