"""Ground truths are proven before anything is trained on them: each must grade itself 1, and a changed one must score less."""

import json
import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from tulu.errors import DataError
from tulu.grading.grader import Grader
from tulu.types import Problem
from tulu.verifiers.proof import Proof, fault_of, proof_of
from tulu.verifiers.registry import check_gold

log = logging.getLogger("tulu")

MOST_BAD = 0.01
"""Share of a source's ground truths that may be left out before the run stops."""
_REMEMBERED = 200_000
"""Ground truths whose proof is remembered, so that several stages of one run prove each of them once."""
_BATCH = 2048
"""Ground truths that are graded together."""
_proven: OrderedDict[tuple[str, str], str | None] = OrderedDict()
"""Verifier and ground truth -> why it is not proven, or None where it is."""

Pair = tuple[str, Any]
"""A verifier's name and a ground truth of one of its rows."""


def faults(pairs: Sequence[Pair]) -> list[str | None]:
    """For each verifier and ground truth why it cannot be used, or None. Equal ones are examined once.

    Ground truths that are no answers (instructions, tests of a program, criteria) are only checked; the others are graded.
    """
    keys = [(name.lower(), json.dumps(gold, sort_keys=True, default=str)) for name, gold in pairs]
    fresh = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in _proven}
    known = {key: _proven[key] for key in keys if key in _proven}
    known |= dict(zip(fresh, _examine(list(fresh.values())), strict=True))
    _proven.update(known)
    while len(_proven) > _REMEMBERED:
        _proven.popitem(last=False)
    return [known[key] for key in keys]


def is_provable(name: str, gold: Any) -> bool:
    """Whether a ground truth, which its verifier can use, is an answer that can be graded."""
    return proof_of(name, gold) is not None


def _examine(pairs: Sequence[Pair]) -> Iterator[str | None]:
    # No process is started before a verifier that needs one is met.
    with Grader(2) as grader:
        for start in range(0, len(pairs), _BATCH):
            yield from _examine_batch(pairs[start : start + _BATCH], grader)


def _examine_batch(pairs: Sequence[Pair], grader: Grader) -> Iterator[str | None]:
    plans = [_plan(name, gold) for name, gold in pairs]
    items = [
        (completion, Problem("", (), (), gold, (name,)))
        for (name, gold), plan in zip(pairs, plans, strict=True)
        if isinstance(plan, Proof)
        for completion in plan.completions
    ]
    verdicts = iter(grader.grade(items))
    for plan in plans:
        yield fault_of(plan, [next(verdicts) for _ in plan.completions]) if isinstance(plan, Proof) else plan


def _plan(name: str, gold: Any) -> Proof | str | None:
    """What has to be graded; a text where the verifier cannot use the ground truth; None where there is nothing to grade."""
    try:
        check_gold(name, gold)
        return proof_of(name, gold)
    except DataError as error:
        return str(error)


def stop_over_limit(source: str, rows: int, bad: Sequence[tuple[str, str]], listed: int = 20) -> None:
    """DataError where more than one in a hundred of a source's rows, given as (row, fault), have unusable ground truths."""
    if len(bad) <= MOST_BAD * rows:
        return
    lines = [f"  {row}: {fault}" for row, fault in bad[:listed]]
    lines += [f"  … and {len(bad) - listed} more"] if len(bad) > listed else []
    raise DataError(
        f"{source}: {len(bad)} of {rows} rows ({len(bad) / rows:.1%}) have a ground truth that cannot be used:\n"
        + "\n".join(lines)
        + "\nmend them, choose another verifier, or leave them out with bad_golds: skip"
    )
