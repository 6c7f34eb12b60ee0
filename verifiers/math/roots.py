"""Roots of fractions that are fractions themselves."""

import math
from fractions import Fraction

_LARGEST_ROOT = 64
"""Degrees and powers that are tried."""


def exact_root(base: Fraction, exponent: Fraction) -> Fraction | None:
    """A fraction to the p/q where that is a fraction."""
    degree = exponent.denominator
    if base < 0 or degree > _LARGEST_ROOT or abs(exponent.numerator) > _LARGEST_ROOT:
        return None
    if base.numerator.bit_length() + base.denominator.bit_length() > 4000:
        return None
    roots = [_integer_root(part, degree) for part in (base.numerator, base.denominator)]
    return None if None in roots else Fraction(roots[0] or 0, roots[1] or 1) ** exponent.numerator


def _integer_root(value: int, degree: int) -> int | None:
    if degree == 2:
        root = math.isqrt(value)
    else:
        root = 1 << -(-value.bit_length() // degree)
        while (better := ((degree - 1) * root + value // root ** (degree - 1)) // degree) < root:
            root = better
    return root if root**degree == value else None
