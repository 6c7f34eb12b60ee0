"""Real and complex numbers with certified bounds: the true value lies inside a rectangle whose sides are intervals of mpmath.

Every function takes the precision in bits and rounds its bounds outwards.
"""

from fractions import Fraction
from typing import Any, NamedTuple

from mpmath.libmp import (
    finf,
    fninf,
    from_int,
    fzero,
    libmpi,
    mpf_cmp,
    mpf_div,
    mpf_floor,
    mpf_pi,
    mpf_sign,
    round_ceiling,
    round_floor,
    to_int,
)

Interval = Any
"""Lower and upper bound, two raw floats of mpmath, which has no types."""
_LARGEST_MAGNITUDE = 4_000_000
"""Bits before the binary point of the largest value."""
_ZERO: Interval = (fzero, fzero)


class Undefined(Exception):
    """There certainly is no finite value."""


class Unsure(Exception):
    """The precision is too small to tell whether there is a value."""


class TooLarge(Exception):
    """The value is too large to be computed with."""


class Ball(NamedTuple):
    """A rectangle that holds a number; the imaginary part of a real one is exactly 0."""

    re: Interval
    im: Interval = _ZERO

    @property
    def is_real(self) -> bool:
        """Whether it certainly lies on the real line."""
        return bool(self.im == _ZERO)


def of_fraction(value: Fraction, prec: int) -> Ball:
    """The smallest ball around a fraction."""
    numerator, denominator = from_int(value.numerator), from_int(value.denominator)
    return Ball((mpf_div(numerator, denominator, prec, round_floor), mpf_div(numerator, denominator, prec, round_ceiling)))


def checked(value: Ball) -> Ball:
    """The value, unless it is not finite or too large."""
    for bound in (*value.re, *value.im):
        if bound in (finf, fninf) or not (bound[1] or bound == fzero):
            raise Unsure
        if bound[1] and abs(bound[2] + bound[3]) > _LARGEST_MAGNITUDE:
            raise TooLarge("value too large")
    return value


def sign(interval: Interval) -> int | None:
    """1, -1 or 0 where an interval certainly has that sign; None where it may have several."""
    low, high = mpf_sign(interval[0]), mpf_sign(interval[1])
    return 1 if low > 0 else -1 if high < 0 else 0 if low == high == 0 else None


def holds_zero(value: Ball) -> bool:
    """Whether a ball may be zero."""
    return sign(value.re) in (0, None) and sign(value.im) in (0, None)


def add(a: Ball, b: Ball, prec: int) -> Ball:
    """a + b"""
    return Ball(libmpi.mpi_add(a.re, b.re, prec), _ZERO if a.is_real and b.is_real else libmpi.mpi_add(a.im, b.im, prec))


def negative(a: Ball) -> Ball:
    """-a"""
    return Ball(libmpi.mpi_neg(a.re), _ZERO if a.is_real else libmpi.mpi_neg(a.im))


def multiply(a: Ball, b: Ball, prec: int) -> Ball:
    """a times b"""
    if a.is_real and b.is_real:
        return Ball(libmpi.mpi_mul(a.re, b.re, prec))
    return Ball(*libmpi.mpci_mul(tuple(a), tuple(b), prec))


def divide(a: Ball, b: Ball, prec: int) -> Ball:
    """a / b; Unsure where b may be zero."""
    if holds_zero(b):
        if b.is_real and sign(b.re) == 0:
            raise Undefined("division by zero")
        raise Unsure
    if a.is_real and b.is_real:
        return Ball(libmpi.mpi_div(a.re, b.re, prec))
    return Ball(*libmpi.mpci_div(tuple(a), tuple(b), prec))


def integer_power(a: Ball, exponent: int, prec: int) -> Ball:
    """a to an integer"""
    if exponent < 0:
        return divide(of_fraction(Fraction(1), prec), integer_power(a, -exponent, prec), prec)
    if a.is_real:
        return Ball(libmpi.mpi_pow_int(a.re, exponent, prec))
    result, square = of_fraction(Fraction(1), prec), a
    while exponent:
        if exponent & 1:
            result = multiply(result, square, prec)
        square = multiply(square, square, prec) if exponent > 1 else square
        exponent >>= 1
    return result


def exponential(a: Ball, prec: int) -> Ball:
    """e to the a"""
    for bound in (*a.re, *a.im):
        if bound[1] and bound[2] + bound[3] > 22:
            raise TooLarge("exponent too large")
    if a.is_real:
        return Ball(libmpi.mpi_exp(a.re, prec))
    return Ball(*libmpi.mpci_exp(tuple(a), prec))


def logarithm(a: Ball, prec: int) -> Ball:
    """The principal natural logarithm; Unsure where a may be zero or lies across the cut of the plane."""
    if a.is_real and sign(a.re) == 1:
        return Ball(libmpi.mpi_log(a.re, prec))
    if holds_zero(a):
        raise Undefined("logarithm of zero") if a.is_real and sign(a.re) == 0 else Unsure
    if a.is_real:
        return Ball(libmpi.mpi_log(libmpi.mpi_neg(a.re), prec), pi(prec).re)
    if sign(a.im) is None and sign(a.re) != 1:
        raise Unsure
    return Ball(*libmpi.mpci_log(tuple(a), prec))


def pi(prec: int) -> Ball:
    """The number pi."""
    return Ball((mpf_pi(prec, round_floor), mpf_pi(prec, round_ceiling)))


def square_root(a: Ball, prec: int) -> Ball:
    """The root of a real number that is certainly not negative."""
    return Ball(libmpi.mpi_sqrt(a.re, prec))


def cosine_sine(a: Ball, prec: int) -> tuple[Ball, Ball]:
    """cos a and sin a"""
    for bound in (*a.re, *a.im):
        if bound[1] and bound[2] + bound[3] > 4000:
            raise TooLarge("angle too large")
    if a.is_real:
        cosine, sine = libmpi.mpi_cos_sin(a.re, prec)
        return Ball(cosine), Ball(sine)
    return Ball(*libmpi.mpci_cos(tuple(a), prec)), Ball(*libmpi.mpci_sin(tuple(a), prec))


def arctangent(a: Ball, prec: int) -> Ball:
    """arctan of a real number"""
    if not a.is_real:
        raise Undefined("arctan of a complex number")
    return Ball(libmpi.mpi_atan(a.re, prec))


def absolute(a: Ball, prec: int) -> Ball:
    """|a|"""
    return Ball(libmpi.mpi_abs(a.re) if a.is_real else libmpi.mpci_abs(tuple(a), prec))


def same(a: Ball, b: Ball, prec: int, bits: int) -> bool | None:
    """False where two balls are disjoint; True where they differ by less than 2^-bits of both; else None."""
    difference = add(a, negative(b), prec)
    if not holds_zero(difference):
        return False
    gap, sizes = absolute(difference, prec).re, [absolute(value, prec).re for value in (a, b)]
    if any(sign(size) != 1 for size in sizes):
        return None
    threshold = min((size[0] for size in sizes), key=_Ordered)
    return True if mpf_cmp(gap[1], _shifted(threshold, -bits)) < 0 else None


class _Ordered:
    """A raw float as a key to sort by."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __lt__(self, other: "_Ordered") -> bool:
        return bool(mpf_cmp(self._value, other._value) < 0)


def _shifted(value: Any, bits: int) -> Any:
    sign_bit, mantissa, exponent, count = value
    return (sign_bit, mantissa, exponent + bits, count)


def floor_of(a: Ball) -> int | None:
    """The integer below a real ball; None where it may be either of two."""
    if not a.is_real:
        raise Undefined("floor of a complex number")
    low, high = (int(to_int(mpf_floor(bound))) for bound in a.re)
    return low if low == high else None
