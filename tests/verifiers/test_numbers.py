from fractions import Fraction

import pytest

from tulu.verifiers.numbers import parse_number, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("-0.0", Fraction(0)),
        ("0e5", Fraction(0)),
        ("042", Fraction(42)),
        ("+1,234.50", Fraction(2469, 2)),
        (".5", Fraction(1, 2)),
        ("5.", Fraction(5)),
        ("-1.25e3", Fraction(-1250)),
        ("12E-1", Fraction(6, 5)),
        ("-7/21", Fraction(-1, 3)),
        ("3 1/2", Fraction(7, 2)),
        ("-3 1/2", Fraction(-7, 2)),
    ],
)
def test_value_is_exact(text: str, value: Fraction) -> None:
    number = parse_number(text)
    assert number is not None
    assert same_number(number, value)
    assert same_number(value, number)


@pytest.mark.parametrize("text", ["", "nan", "inf", "1,2", "12,34", "1.2.3", "--1", "1/0", "0x10", "1_000", "٣", "1e", "²"])
def test_what_is_no_number(text: str) -> None:
    assert parse_number(text) is None


def test_lengths_and_exponents_cost_nothing() -> None:
    long = parse_number("1" + "0" * 100_000)
    short, huge = parse_number("1e100000"), parse_number("1e999999999")
    assert long is not None
    assert short is not None
    assert huge is not None
    assert same_number(long, short)
    assert not same_number(long, huge)
    assert not same_number(huge, Fraction(1, 3))
