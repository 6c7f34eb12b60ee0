"""Answers that score 0 without being computed: they cost too much, or restate the problem and leave the work undone."""

import re

from tulu.verifiers.math.exact import exact_number

LONGEST_ANSWER = 512
"""Characters of an answer that is compared as mathematics; a longer one can only be right letter for letter."""
_DEEPEST = 20
"""Brackets inside each other, and fractions and roots in all."""
_LARGEST_POWER = 10_000

# \sum_{k=1}^3 k, \int_0^1, \lim, \gcd(4,6), 7 \bmod 3; \frac{d}{dx}, {dx; lcm
_UNEVALUATED = re.compile(
    r"\\(?:sum|prod|int|iint|oint|lim|limsup|max|min|gcd|lcm|det|b?mod|pmod)(?![a-z])|\bd\}?\{d[a-z]\b|\blcm\b"
)
# \log_2 32, \sin 0, \lfloor 2.5; |3-5|
_FUNCTION = re.compile(r"\\(?:log|ln|lg|(?:arc)?(?:sin|cos|tan)|cot|sec|csc|exp|[lr]floor|[lr]ceil)(?![a-z])|\|")
# 17 \times 23, 3+4, 2\cdot\sqrt{9}, 10/\frac{1}{2}; 3(4+5)
_ARITHMETIC = re.compile(r"[\d)}!]\s*(?:[-+*/]|\\times|\\cdot|\\div)\s*[-+]?\s*(?:\d|\(|\{|\\frac|\\sqrt|\\binom)|[\d)}]\s*\(")
_LARGE_POWER = re.compile(r"(?:\^|\*\*)\s*[({]?\s*[-+]?(\d{5,})")  # 2^{100000}
_TOWER = re.compile(r"(?:\^|\*\*)\s*[({]?\s*-?\s*\d+[)}]?\s*[)}]?\s*(?:\^|\*\*|!)")  # 2^{3^{4}}, 2^{10!}
_LARGE_FACTORIAL = re.compile(r"(?:\d{5,}|!)\s*[)}]?\s*!|\\binom\s*\{\s*\d{5,}")  # 12345!, 5!!, \binom{12345}{3}


def reason_to_refuse(answer: str, gold: str) -> str | None:
    """Why a tidied answer scores 0 without being computed; None where it does not."""
    if len(answer) > LONGEST_ANSWER:
        return f"answer of {len(answer)} characters"
    depth = deepest = 0
    for character in answer:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    if deepest > _DEEPEST or answer.count("\\sqrt") + answer.count("\\frac") > _DEEPEST:
        return "nested too deep"
    powers = [int(digits) for digits in _LARGE_POWER.findall(answer)]
    if any(power > _LARGEST_POWER for power in powers) or _TOWER.search(answer) or _LARGE_FACTORIAL.search(answer):
        return "power or factorial too large"
    if _UNEVALUATED.search(answer) and not _UNEVALUATED.search(gold):
        return "not evaluated"
    if exact_number(gold) is not None and (_ARITHMETIC.search(answer) or _FUNCTION.search(answer)):
        return "not evaluated"
    return None
