"""reasoning_gym: the generated tasks of reasoning-gym (Stojanovski et al. 2025), scored by the functions of that package.

The ground truth is {"dataset": name, "entry": the generated entry}, or that as JSON. Many tasks give 0.1 or less to any
answer at all, so scores up to 0.1 count as 0, and an entry that pays more than that for nonsense is refused.
"""

import copy
import re
from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json, shorten
from tulu.verifiers.text import final_answer, has_content

_FLOOR = 0.1
_NONSENSE = (
    "?", ".", "I do not know.", "quite another answer", "4719.0836152", "-58203.25", "nan", "inf", "1e999", "nan+nanj",
)  # fmt: skip
"""Answers that are right for no entry."""
_BY_CHANCE = (
    "0", "1", "-1", "no", "yes", "true", "None", "[]", "{}", "()", "[[]]", "x", "a b c", "1 2 3 4 5 6", "[0, 0, 0]", "0 0\n0 0",
)  # fmt: skip
"""Answers that are right for an entry by chance alone."""
_MUCH = 0.5
"""A score above which no nonsense may be."""
_NOT_FINITE = re.compile(r"(?<![a-z])(?:nan|inf|infinity)j?(?![a-z])|\de\+?\d{3,}", re.IGNORECASE)  # nan, -inf, nan+nanj, 1e999
"""A number that no comparison with a tolerance can refuse."""


def _parse(gold: Any) -> tuple[str, dict[str, Any]]:
    """Name of the data set, and the entry; GoldError where the ground truth is something else."""
    gold = parse_json(gold)
    if not isinstance(gold, dict) or not isinstance(gold.get("dataset"), str) or not isinstance(gold.get("entry"), dict):
        raise GoldError("ground_truth must be {dataset, entry}")
    return gold["dataset"], gold["entry"]


def _scorer(dataset: str) -> Any:
    import reasoning_gym

    try:
        return reasoning_gym.get_score_answer_fn(dataset)
    except (ValueError, KeyError) as fault:
        raise GoldError(f"reasoning-gym has no data set {dataset!r}") from fault


def check(gold: Any) -> None:
    """GoldError unless the data set exists, and the entry pays its own answer more than it pays nonsense."""
    dataset, entry = _parse(gold)
    if "answer" not in entry:
        raise GoldError("the entry has no answer")
    score = _scorer(dataset)
    if entry["answer"] is not None:
        try:
            own = _score(score, str(entry["answer"]), entry)
        # The scorers of other projects raise what they like; here it says that the entry cannot be used.
        except Exception as fault:
            raise GoldError(f"the scorer of {dataset} fails on the entry's own answer: {fault}") from fault
        if own <= _FLOOR:
            raise GoldError(f"the scorer of {dataset} gives the entry's own answer {own:g}")
    paid = {text: _nonsense_score(score, text, entry) for text in (*_NONSENSE, *_BY_CHANCE)}
    worst = max(_NONSENSE, key=paid.__getitem__)
    if paid[worst] > _MUCH or sum(value > 0 for value in paid.values()) > len(paid) / 2:
        raise GoldError(f"the scorer of {dataset} pays {paid[worst]:g} for nonsense such as {worst!r}")


def _score(score: Any, answer: str, entry: dict[str, Any]) -> float:
    """The score of an answer, from 0 to 1; 0 where the scorer gives none, or the answer is a number that is not finite."""
    if _NOT_FINITE.search(answer) and not _NOT_FINITE.search(str(entry["answer"])):
        return 0.0
    value = score(answer=answer, entry=copy.deepcopy(entry))
    value = float(value) if isinstance(value, int | float) else 0.0
    return min(1.0, value) if value > _FLOOR else 0.0


def _nonsense_score(score: Any, text: str, entry: dict[str, Any]) -> float:
    try:
        return 0.0 if text == str(entry["answer"]) else _score(score, text, entry)
    # A scorer that fails on nonsense does not pay for it.
    except Exception:  # noqa: BLE001
        return 0.0


def strict(case: Case) -> Verdict:
    """The score that the task's own function gives; 0 where that is at most 0.1, or where it fails on the answer alone."""
    dataset, entry = _parse(case.gold)
    answer = final_answer(case.completion)
    if not has_content(answer):
        return Verdict(0.0, detail="no answer")
    score = _scorer(dataset)
    try:
        return Verdict(_score(score, answer, entry), detail=shorten(f"answer {answer}"))
    # The scorers of other projects raise what they like.
    except Exception as fault:  # noqa: BLE001
        try:
            _score(score, "0" if entry["answer"] is None else str(entry["answer"]), entry)
        except Exception:  # noqa: BLE001
            # It fails on the right answer too, so that the entry or the package is at fault.
            raise fault from None
        return Verdict(0.0, detail=shorten(f"the scorer fails on the answer: {type(fault).__name__}: {fault}", 200))


def warm() -> None:
    """Load the package, which takes longer than a verdict may."""
    import reasoning_gym  # noqa: F401


REASONING_GYM = Verifier(check=check, strict=strict, needs=("reasoning_gym",), cpu_seconds=5.0, warm=warm)
