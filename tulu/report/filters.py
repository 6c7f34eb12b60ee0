"""What a reader asks of the rollouts of runs, answered out of the indexes of their files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tulu.report.rollout_files import Array, Damaged, Index, Indexes, RolloutFile, rollout_files
from tulu.report.rollout_views import list_view
from tulu.report.runs import ReportedRun, ReportedStage

MOST_LISTED = 200
"""Most completions of one answer."""
_RANGES = ("step", "reward", "tokens")
_FLAGS = {"": None, "yes": True, "no": False}


class BadQuestion(Exception):
    """A question that makes no sense; the message says why."""


@dataclass(frozen=True)
class Wanted:
    """The rollouts that a reader wants to see."""

    stage: str
    """RUN/STAGE, where RUN is the place of the run; empty for all."""
    verifier: str
    ranges: Mapping[str, tuple[float, float]]
    truncated: bool | None
    masked: bool | None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "Wanted":
        """The wish in the fields of a form. Raises BadQuestion."""
        flags = {name: fields.get(name, "") for name in ("truncated", "masked")}
        for name, value in flags.items():
            if value not in _FLAGS:
                raise BadQuestion(f"{name}: yes, no or nothing, not {value!r}")
        return cls(
            stage=fields.get("stage", ""),
            verifier=fields.get("verifier", ""),
            ranges={name: (bound(fields, f"{name}_min", -math.inf), bound(fields, f"{name}_max", math.inf)) for name in _RANGES},
            truncated=_FLAGS[flags["truncated"]],
            masked=_FLAGS[flags["masked"]],
        )

    def places(self, index: Index) -> Array:
        """The completions of a file that are wanted."""
        fit = np.ones(len(index), bool)
        for name, values in (("reward", index.reward), ("tokens", index.tokens)):
            low, high = self.ranges[name]
            if low > -math.inf or high < math.inf:
                # A completion without a reward is within no bounds.
                fit &= (values >= low) & (values <= high)
        for flags, wanted in ((index.truncated, self.truncated), (index.masked, self.masked)):
            if wanted is not None:
                fit &= flags == wanted
        if self.verifier:
            code = index.verifiers.index(self.verifier) if self.verifier in index.verifiers else -1
            fit &= index.verifier == code
        return np.flatnonzero(fit)


def bound(fields: Mapping[str, str], name: str, default: float) -> float:
    """A number of a form. Raises BadQuestion where something else stands there."""
    text = fields.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadQuestion(f"{name}: a number, not {text[:40]!r}") from None
    if math.isnan(value):
        raise BadQuestion(f"{name}: a number, not {text!r}")
    return value


def whole(fields: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`. Raises BadQuestion."""
    value = bound(fields, name, default)
    if not (0 <= value <= most and value == int(value)):
        raise BadQuestion(f"{name}: a whole number from 0 to {most}")
    return int(value)


def stages_with_rollouts(runs: Sequence[ReportedRun]) -> dict[str, tuple[int, ReportedStage]]:
    """Stages by RUN/STAGE: the only names by which a reader reaches a file."""
    stages = [(place, stage) for place, run in enumerate(runs) for stage in run.stages]
    return {f"{place}/{stage.name}": (place, stage) for place, stage in stages}


def listing(runs: Sequence[ReportedRun], wanted: Wanted, offset: int, limit: int, indexes: Indexes) -> dict[str, Any]:
    """How many rollouts are wanted, and `limit` of them from `offset` on, the newest steps first."""
    stages = stages_with_rollouts(runs)
    if wanted.stage and wanted.stage not in stages:
        raise BadQuestion(f"stage: there is no {wanted.stage[:80]!r}")
    low, high = wanted.ranges["step"]
    files: list[tuple[int, ReportedStage, RolloutFile]] = [
        (place, stage, file)
        for key, (place, stage) in stages.items()
        if wanted.stage in ("", key)
        for file in rollout_files(stage.folder)
        if low <= file.step <= high
    ]
    total, rows = 0, []
    for place, stage, file in sorted(files, key=lambda one: -one[2].step):
        try:
            index = indexes.of(file)
            found = wanted.places(index)
            mine = found[max(0, offset - total) : max(0, offset + limit - total)]
            listed = list_view(file, index, mine.tolist()) if len(mine) else []
        except Damaged:
            # The page names the file among what cannot be read.
            continue
        rows += [{"run": place, "stage": stage.name, **row} for row in listed]
        total += len(found)
    return {"total": total, "rows": rows}
