"""Sine, cosine, tangent and arctangent of Decimals to the precision of the context, for arguments of ordinary size."""

from decimal import Decimal, InvalidOperation, getcontext

PI = Decimal("3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986")
_LARGEST = 1_000_000
"""Beyond it, the digits of pi above would not do for the remainder."""


def sine(x: Decimal) -> Decimal:
    """Taylor's series of what is left of x between -pi and pi."""
    if abs(x) > _LARGEST:
        raise InvalidOperation("argument too large")
    x -= (x / (2 * PI)).to_integral_value() * 2 * PI
    smallest = Decimal(10) ** -(getcontext().prec + 5)
    term, total, square, at = x, x, x * x, 1
    while abs(term) > smallest:
        at += 2
        term *= -square / (at * (at - 1))
        total += term
    return total


def cosine(x: Decimal) -> Decimal:
    return sine(x + PI / 2)


def tangent(x: Decimal) -> Decimal:
    return sine(x) / cosine(x)


def arctangent(x: Decimal) -> Decimal:
    """Halved until its series is short: arctan x = 2 arctan(x / (1 + sqrt(1 + x^2)))."""
    halvings = 0
    while abs(x) > Decimal("0.1"):
        x /= 1 + (1 + x * x).sqrt()
        halvings += 1
    smallest = Decimal(10) ** -(getcontext().prec + 5)
    power, total, square, at = x, x, x * x, 1
    while abs(power) > smallest:
        at += 2
        power *= -square
        total += power / at
    return total * 2**halvings
