"""reasoning_gym: the generated tasks of reasoning-gym (Stojanovski et al. 2025), scored by the functions of that package.

The ground truth is {"dataset": name, "entry": the generated entry}, or that as JSON. Many tasks give 0.1 or less to any
answer at all, so scores up to 0.1 count as 0.
"""

from typing import Any

from tulu.types import Verdict
from tulu.verifiers.contract import Case, GoldError, Verifier, parse_json, shorten
from tulu.verifiers.text import final_answer

_FLOOR = 0.1


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
    """GoldError unless the data set exists and the entry has an answer."""
    dataset, entry = _parse(gold)
    if "answer" not in entry:
        raise GoldError("the entry has no answer")
    _scorer(dataset)


def strict(case: Case) -> Verdict:
    """The score that the task's own function gives; 0 where that is at most 0.1."""
    dataset, entry = _parse(case.gold)
    answer = final_answer(case.completion)
    score = float(_scorer(dataset)(answer=answer, entry=entry))
    return Verdict(min(1.0, score) if score > _FLOOR else 0.0, detail=shorten(f"answer {answer}"))


REASONING_GYM = Verifier(check=check, strict=strict, needs=("reasoning_gym",))
