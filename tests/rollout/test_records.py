"""Figures of a step, worked on paper."""

import math
import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.rollout.fakes import Numbers
from tulu.grading.reward import Grades
from tulu.rollout.fleet import EngineState, SyncReport
from tulu.rollout.records import EngineFigures, masked_warning, pass_at, record, staleness, summary, sync_figures
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.rollout.token_notes import TokenNote
from tulu.types import Completion, Group, Problem, Verdict


def combined(*parts: float | None) -> Verdict:
    """The verdict of the verifiers math and ifeval, whose scores have the weights 1 and 10; None where one of them failed."""
    said = tuple(
        zip(("math", "ifeval"), [Verdict(None, "timeout") if one is None else Verdict(one) for one in parts], strict=True)
    )
    if None in parts:
        return Verdict(None, "timeout", "", said)
    return Verdict(sum(weight * (one or 0.0) for weight, one in zip((1, 10), parts, strict=True)), "ok", "", said)


def rollout(scores: Sequence[float | None], verifier: str = "exact", versions: Sequence[tuple[int, int]] = ((0, 0),)) -> Rollout:
    n = len(scores)
    verdicts = [Verdict(None, "error") if score is None else Verdict(score) for score in scores]
    group = Group([1], [Completion([7] * 5, [True] * 5, [-1.0] * 5, "stop", versions)] * n, "p")
    rewards = tuple(math.nan if score is None else score for score in scores)
    return Rollout(Problem("p", (), [1], None, (verifier,)), group, ("x",) * n, tuple(map(Grades, verdicts)), rewards, (0.0,) * n)


def test_pass_at_k_without_bias() -> None:
    """Two of four right: of 6 pairs one has none right, so pass@2 is 5/6. All wrong: 0."""
    assert pass_at([rollout([1, 0, 0, 1])]) == pytest.approx({"pass@2": 5 / 6, "pass@4": 1.0})
    assert pass_at([rollout([1, 0, 0, 1]), rollout([0, 0, 0, 0])]) == pytest.approx({"pass@2": 5 / 12, "pass@4": 0.5})
    assert pass_at([rollout([1])]) == {}


def test_pass_at_k_counts_those_that_were_graded() -> None:
    """A verifier that failed says nothing: one of two is right, and no four were graded. Half a score is not right."""
    assert pass_at([rollout([1, None, 0.5, None])]) == pytest.approx({"pass@2": 1.0})


def test_solved_reward_and_faults_by_verifier() -> None:
    rollouts = [rollout([1, 0], "math"), rollout([1, 1], "code"), rollout([0, 0], "math")]
    found = summary(StepRollouts(rollouts, rollouts))
    assert {name: found[name] for name in ("solved", "solved/math", "solved/code")} == pytest.approx(
        {"solved": 0.5, "solved/math": 0.25, "solved/code": 1.0}
    )
    assert (found["reward/math"], found["reward/code"]) == (0.25, 1.0)
    found = summary(StepRollouts(rollouts[:1], rollouts[:1]))
    assert (found["solved/math"], found["reward/math"], found["faults/math"]) == (0.5, 0.5, 0.0), "of a single one too"
    assert "solved/code" not in found


def test_each_verifier_of_a_combination_has_figures_of_its_own() -> None:
    """Rows of math with ifeval, one where ifeval failed, beside rows of math alone, which count for math too."""
    both, alone = rollout([11, None], "math"), rollout([0, 1], "math")
    both = replace(both, problem=replace(both.problem, verifiers=("math", "ifeval")))
    both = replace(both, grades=(Grades(combined(1, 1)), Grades(combined(0, None))))
    found = summary(StepRollouts([both, alone], [both, alone]))
    assert found["solved/math"] == pytest.approx((1 + 0 + 0 + 1) / 4), "what it said itself, before its weight"
    assert (found["solved/ifeval"], found["faults/ifeval"], found["faults/math"]) == (1.0, 0.5, 0.0)
    assert (found["reward/math"], found["reward/ifeval"]) == pytest.approx(((11 + 0 + 1) / 3, 11.0))
    assert not [name for name in found if "+" in name]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("GSM8K", "gsm8k"), ("../own/Mine.py:score", "own.Mine.py:score"), ("/home/me/mine.py:score", "home.me.mine.py:score")],
)
def test_a_verifiers_name_in_a_figure_is_no_path(name: str, shown: str) -> None:
    """MLflow takes a name of a figure for a path and refuses one that is not in its simplest form."""
    found = summary(StepRollouts([], [rollout([1, 0], name)]))
    assert found[f"solved/{shown}"] == 0.5
    assert not [figure for figure in found if posixpath.normpath(figure) != figure]


def test_a_reward_model_beside_a_verifier_and_an_environment_go_by_their_names() -> None:
    one = rollout([1, 0], "math")
    preferred = replace(one, grades=tuple(Grades(Verdict(score), Verdict(3.0)) for score in (1.0, 0.0)), rewards=(4.0, 3.0))
    preferred = replace(preferred, problem=replace(one.problem, verifiers=("math", "reward_model")))
    found = summary(StepRollouts([preferred], [preferred]))
    assert (found["solved/math"], found["reward/math"], found["reward/reward_model"]) == (0.5, 3.5, 3.5)
    assert "solved/reward_model" not in found, "a preference is no share that was solved"
    # Rows that an environment scores name the reward model, so that no verifier is asked.
    ends = [replace(end, verdict=grade.verdict) for end, grade in zip(one.group.completions, one.grades, strict=True)]
    played = replace(one, problem=replace(one.problem, verifiers=("reward_model",)), group=Group([1], ends, "p"))
    found = summary(StepRollouts([played], [played]))
    assert (found["solved/env"], found["reward/env"], found["faults/env"]) == (0.5, 0.5, 0.0)
    assert not [name for name in found if "reward_model" in name]


def test_a_share_that_is_masked_is_told_with_who_failed_most() -> None:
    """Of 8 completions no engine ended one; the verifier failed on one more, then on two."""
    ends = [Completion([7], [True], [-1.0], "data", [(0, 0)]), *rollout([1] * 7).group.completions]
    one = rollout([None, None, *[1.0] * 6], "code")
    one = replace(one, group=replace(one.group, completions=ends))
    most = replace(one, grades=(*one.grades[:2], Grades(Verdict(None, "timeout", "6 s")), *one.grades[3:]))
    assert masked_warning(StepRollouts([], [one]), 0.1) is None
    told = masked_warning(StepRollouts([], [most]), 0.375)
    assert told is not None
    assert told.startswith("38% of a step's completions are masked")
    assert "the verifier code failed on 2 of 8 completions (3 have no score), 1 times with " in told


def test_a_sync_is_told_in_seconds_in_its_share_of_the_step_and_in_parts() -> None:
    report = SyncReport(3, seconds=2.0, parts={"pack": 0.5, "load": 1.5})
    found = sync_figures(2.5, report, 10.0)
    assert found == {"sync_seconds": 2.5, "share_weight_sync": 0.25, "sync/pack": 0.5, "sync/load": 1.5}


def test_faults_of_graders_are_told_from_completions_that_no_engine_ended() -> None:
    """Of 4 completions one has no verdict; of 2 more no engine ended one, which no grader is to blame for."""
    graded, half = rollout([1, None, 0, 0], "math"), rollout([1, None], "code")
    unfinished = replace(half.group.completions[1], finish="data")
    half = replace(half, group=replace(half.group, completions=(half.group.completions[0], unfinished)))
    found = summary(StepRollouts([graded, half], [graded, half]))
    assert (found["faults"], found["masked"]) == pytest.approx((1 / 5, 2 / 6))
    assert (found["faults/math"], found["faults/code"]) == (0.25, 0.0)


def test_the_advantage_of_a_completion_whose_rewards_are_compared_later() -> None:
    """It is that of its trained tokens, in the mean; what the sampler left in its place is a reward."""
    one = replace(rollout([1, 0]), advantages=(10.0, 0.0))
    first, second = (replace(completion, tokens=[8, 7, 6, 5, 4]) for completion in one.group.completions)
    one = replace(one, group=replace(one.group, completions=[first, second]))
    mismatch = np.zeros(5, dtype=np.float32)
    notes = {id(first): TokenNote(mismatch, np.array([1, 2, math.nan, math.nan, 3], dtype=np.float32))}
    tokenizer: Any = Numbers()
    right, unseen = record(StepRollouts([one], [one]), tokenizer, notes, compares_later=True)
    assert right["advantage"] == 2.0
    assert math.isnan(unseen["advantage"]), "another process trained on it"
    assert [row["advantage"] for row in record(StepRollouts([one], [one]), tokenizer, notes)] == [10.0, 0.0]


def test_lengths() -> None:
    one = rollout([1, 0, 0, 0])
    ends = [Completion([7] * n, [True] * n, [-1.0] * n, "stop", [(0, 0)]) for n in (2, 9, 4, 5)]
    found = summary(StepRollouts([], [replace(one, group=replace(one.group, completions=ends))]))
    names = ("completion_tokens", "completion_tokens_median", "completion_tokens_max")
    assert [found[name] for name in names] == [5.0, 4.5, 9.0]


def test_staleness_by_token() -> None:
    """Step 6 starts from weights 5: 2 of 5 tokens are from weights 3, 3 from weights 5."""
    found = staleness(StepRollouts([rollout([1, 0], versions=[(0, 3), (2, 5)])]), step=6, most=2)
    assert found == pytest.approx(
        {"staleness": 0.8, "staleness_max": 2.0, "staleness/0": 0.6, "staleness/1": 0.0, "staleness/2": 0.4}
    )
    assert staleness(StepRollouts([rollout([1], versions=[(0, 5)])]), step=6, most=0) == {"staleness": 0.0, "staleness_max": 0.0}
    assert staleness(StepRollouts(), step=6, most=1) == {}


def test_idle_share_and_speed_of_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    figures = EngineFigures()
    engines = [EngineState("a", 0, "ready", 0, 300, 10.0), EngineState("b", 0, "ready", 0, 100, 5.0)]
    assert figures.read(engines) == pytest.approx(
        {
            **{"engines_idle": 0.25, "engine/a/idle": 0.0, "engine/b/idle": 0.5},
            **{"engines_tokens_per_second": 40.0, "engine/a/tokens_per_second": 30.0, "engine/b/tokens_per_second": 10.0},
        }
    )
    found = figures.read(engines[:1])
    assert found == {"engines_idle": 1.0, "engines_tokens_per_second": 0.0}, "nothing was done since, and one is alone"
