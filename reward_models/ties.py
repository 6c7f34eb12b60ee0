"""The Ties subset of RewardBench 2: many right answers, which should score alike and above every wrong one.

The formula is that of RewardBench 2 (arXiv 2506.01937) and allenai/reward-bench (rewardbench/utils.py @ 05a9005). Every
comparison is strict.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tulu.data.faults import odd_rows
from tulu.errors import DataError
from tulu.reward_models.items import Scored

WEIGHTS = (0.30, 0.30, 0.20, 0.20, 0.01)
"""The weights of tied accuracy, ref accuracy, gap above spread, harder gap above spread, and margin."""

_ID = re.compile(r"(ref|tied):(.+)")
"""An id such as `ref:12` or `tied:12`."""

Terms = tuple[float, float, float, float, float]
"""One prompt's values of the five terms, in the order of WEIGHTS; NaN where a term is not defined for the prompt."""


@dataclass(frozen=True, slots=True)
class _Side:
    """What the scores of one row (ref or tied) say."""

    gap: float
    """Lowest correct score minus highest incorrect one; NaN where a score is missing."""
    spread: float
    """Highest minus lowest correct score."""


def ties_terms(items: Sequence[Scored]) -> list[Terms]:
    """The terms of every prompt K, in the order of first appearance. A missing score makes its prompt's comparisons false.

    Item ref:K is the row of prompt K with one right answer, tied:K the row with several. Raises DataError for any other id, one
    that appears twice, and a wrong number of answers.
    """
    sides: dict[str, dict[str, _Side]] = {}
    problems: list[str] = []
    for item in items:
        try:
            _place(item, sides)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise odd_rows(problems, len(items), "aggregated", "Correct or remove these rows first.")
    return [_terms(by_kind.get("ref"), by_kind.get("tied")) for by_kind in sides.values()]


def ties_score(terms: Sequence[Terms]) -> float | None:
    """The weighted sum of the means of the five terms, between -0.01 and 1.01.

    An accuracy that no prompt defines counts as 0, as upstream. The score is None where no prompt has both its ref and its tied
    row, because the last three terms then have no value (upstream yields NaN).
    """
    if all(math.isnan(term[2]) for term in terms):
        return None
    total = 0.0
    for weight, column in zip(WEIGHTS, zip(*terms, strict=True), strict=True):
        present = [value for value in column if not math.isnan(value)]
        total += weight * (sum(present) / len(present) if present else 0.0)
    return total


def _place(item: Scored, sides: dict[str, dict[str, _Side]]) -> None:
    """Put an item beside the other one of its prompt."""
    match = _ID.fullmatch(item.id)
    if match is None:
        raise _error(item, "a Ties id is ref:K (one correct answer) or tied:K (several), of the same prompt K")
    kind, key = match.groups()
    if kind in sides.setdefault(key, {}):
        raise _error(item, "the id appears twice; every ref:K and tied:K may appear once")
    sides[key][kind] = _side(item, kind)


def _side(item: Scored, kind: str) -> _Side:
    if not item.chosen or not item.rejected:
        raise _error(item, "a Ties item needs at least one chosen and one rejected score")
    if kind == "tied" and len(item.chosen) < 2:
        raise _error(item, "a tied item needs two or more chosen scores; with one, call it ref:K")
    if kind == "ref" and len(item.chosen) > 1:
        raise _error(item, "a ref item has one chosen score; with several, call it tied:K")
    if any(math.isnan(score) for score in (*item.chosen, *item.rejected)):
        return _Side(math.nan, math.nan)
    return _Side(min(item.chosen) - max(item.rejected), max(item.chosen) - min(item.chosen))


def _terms(ref: _Side | None, tied: _Side | None) -> Terms:
    ref_right = math.nan if ref is None else float(ref.gap > 0)
    tied_right = math.nan if tied is None else float(tied.gap > 0)
    if ref is None or tied is None:
        return tied_right, ref_right, math.nan, math.nan, math.nan
    harder = math.nan if math.isnan(ref.gap) or math.isnan(tied.gap) else min(ref.gap, tied.gap)
    return tied_right, ref_right, float(tied.gap > tied.spread), float(harder > tied.spread), _margin(harder, tied.spread)


def _margin(gap: float, spread: float) -> float:
    """tanh(gap / spread - 1). Without spread it is the sign of the gap; 0/0 and a missing score give 0."""
    if spread == 0 and gap != 0 and not math.isnan(gap):
        return math.copysign(1.0, gap)
    ratio = gap / spread if spread else math.nan
    return 0.0 if math.isnan(ratio) else math.tanh(ratio - 1)


def _error(item: Scored, reason: str) -> DataError:
    return DataError(f"{item.where}: id {item.id!r}: {reason}" if item.where else f"id {item.id!r}: {reason}")
