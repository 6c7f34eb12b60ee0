"""Why a run came to its end and no step of it moved the weights, with figures and what to change."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

SHARES = ("solved", "truncated", "masked")
"""Metrics of rollouts that say why groups teach nothing."""

SAME = 1e-6
"""Nats a token below which a teacher is no other model than the policy."""


def why_untrained(stage: str, steps: Sequence[Mapping[str, Any]], overflowed: bool) -> str:
    """The reason in words; `steps` are the metrics of each step, and `overflowed` says that float16 passed over steps."""
    again = "A changed recipe needs --fresh or another name."
    if overflowed:
        return f"every gradient overflowed in float16\nSet {stage}.precision to bf16 or fp32. {again}"
    shares = {name: [step[name] for step in steps if step.get(name) is not None] for name in SHARES}
    told = ", ".join(_told(name, statistics.fmean(values)) for name, values in shares.items() if values)
    if not told:
        return f"every gradient was 0\nLook at the data and the learning rate. {again}"
    divergences = [abs(step["teacher_kl"]) for step in steps if step.get("teacher_kl") is not None]
    if divergences and max(divergences) < SAME:
        why = f"the teacher says of every token what the policy says, and rewards taught nothing (of all completions {told})"
        return f"{why}\nName another model in {stage}.teacher. {again}"
    cure = (
        f"Give problems that the model solves now and then, more samples ({stage}.samples), or longer answers "
        f"({stage}.max_tokens) where many are truncated."
    )
    return f"the rewards within each group were alike (of all completions {told})\n{cure} {again}"


def _told(name: str, mean: float) -> str:
    """A mean in words; scores of an environment or of a reward model are no share that was solved."""
    return f"{mean:.0%} {name}" if 0 <= mean <= 1 else f"with a mean score of {mean:.4g}"
