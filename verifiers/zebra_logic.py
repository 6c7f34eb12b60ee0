"""zebra_logic: all cells of a grid puzzle, from the last {"solution": ...} of an answer (ZeroEval's ZebraLogicMetric)."""

import re
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json, pass_or_fail
from tulu.verifiers.json_text import values_in
from tulu.verifiers.spelling import undressed
from tulu.verifiers.text import after_thinking, visible_text

_BLANK = re.compile(r"[\W_]*|none|null|nan|n/?a|unknown|tbd|todo", re.IGNORECASE)
"""A cell that says nothing: `___`, `?`, an empty text, null."""


Cells = dict[tuple[str, str], str]
"""The value of each (house, attribute) of a grid, in lower case."""


def _gold_cells(gold: Any) -> Cells:
    """The cells of {house: {attribute: value}}, or of ZeroEval's header and rows; GoldError for anything else."""
    houses = parse_json(gold, "ground_truth must be a solution, as an object or as JSON")
    houses = houses.get("solution", houses) if isinstance(houses, dict) else houses
    if isinstance(houses, dict) and "header" in houses and "rows" in houses:
        header = houses["header"]
        houses = {f"House {row[0]}": dict(zip(header[1:], row[1:], strict=True)) for row in houses["rows"]}
    if not isinstance(houses, dict) or not houses or not all(isinstance(values, dict) and values for values in houses.values()):
        raise GoldError("ground_truth must be {house: {attribute: value}}, or header and rows")
    cells = _cells(houses)
    blank = next((cell for cell, value in cells.items() if _BLANK.fullmatch(value)), None)
    if blank:
        # The public ZebraLogicBench hides its solutions so.
        raise GoldError(f"the cell {blank[1]!r} of {blank[0]!r} is blank: the solution is hidden or not complete")
    return cells


def _cells(houses: dict[Any, Any]) -> Cells:
    return {
        (_normalise(house), _normalise(attribute)): _normalise(value)
        for house, values in houses.items()
        if isinstance(values, dict)
        for attribute, value in values.items()
    }


def _normalise(value: Any) -> str:
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if value is None or isinstance(value, dict | list):
        return ""
    return " ".join(undressed(str(value)).lower().split())


def check_houses(gold: Any) -> None:
    """GoldError unless the ground truth is a solved grid."""
    try:
        _gold_cells(gold)
    except (TypeError, LookupError, ValueError) as fault:
        raise GoldError(f"ground_truth is no solved grid: {fault}") from fault


def zebra_logic(case: Case) -> Verdict:
    """1 where every cell of the last {"solution": ...} is right; the detail gives how many are (ZeroEval reports both)."""
    expected = _gold_cells(case.gold)
    solutions = [
        value["solution"]
        for value in values_in(visible_text(after_thinking(case.completion)))
        if isinstance(value, dict) and "solution" in value
    ]
    solution = solutions[-1] if solutions else None
    if not isinstance(solution, dict):
        return Verdict(0.0, detail="no solution")
    answer = _cells(solution)
    correct = sum(answer.get(cell) == value for cell, value in expected.items())
    return pass_or_fail(correct == len(expected), f"{correct}/{len(expected)} cells")


ZEBRA_LOGIC = Verifier(check=check_houses, strict=zebra_logic)
