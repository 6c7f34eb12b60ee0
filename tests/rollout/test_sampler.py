"""From problems to graded rollouts: order, rewards, refilling, and verdicts that fail through no fault of the policy."""

import math
from collections.abc import Sequence
from typing import Any, cast

import pytest

from tests.rollout.fakes import Numbers
from tests.rollout.scripted import (
    SCORES,
    ScriptedEngine,
    ScriptedGrader,
    Steps,
    answer,
    ids,
    make_problems,
    sampler,
    stage,
)
from tulu.data.mixing import order
from tulu.errors import TuluError
from tulu.rollout.batches import pack_rollouts
from tulu.rollout.draws import MAX_ROUNDS
from tulu.rollout.records import record, summary
from tulu.rollout.sampler import Rollout, RolloutGrader, StepRollouts
from tulu.types import Completion, Problem, Verdict


def test_problems_come_in_the_shuffled_order_of_each_epoch() -> None:
    made, _ = sampler(lambda problem, _: "rw", stage(seed=3))
    expected = [f"p{i}" for epoch in range(2) for i in order(10, 3, epoch)]
    drawn, found = 0, []
    for _ in range(4):
        collected = made.collect(drawn)
        drawn = collected.drawn
        found += ids(collected.trained)
    assert drawn == 16
    assert found == expected[:16]


def test_what_is_drawn_and_sampled_is_a_function_of_how_much_was_drawn() -> None:
    """So a resumed run goes on as if it had not been broken off."""
    unbroken, first = sampler(lambda problem, _: "rw", stage())
    resumed, second = sampler(lambda problem, _: "rw", stage())
    unbroken.collect(0)
    assert ids(unbroken.collect(4).sampled) == ids(resumed.collect(4).sampled)
    assert first.calls[1] == second.calls[0]
    assert first.calls[0][1].seed != first.calls[1][1].seed
    other, third = sampler(lambda problem, _: "rw", stage(seed=stage().seed + 1))
    other.collect(4)
    assert third.calls[0][1].seed != second.calls[0][1].seed


def test_advantages_of_a_group_are_worked_on_paper() -> None:
    made, _ = sampler(lambda problem, _: "rwww", stage(samples=4, batch=16, advantage="centred"))
    (first, *_) = made.collect(0).trained
    assert first.rewards == (1.0, 0.0, 0.0, 0.0)
    assert first.advantages == pytest.approx((0.75, -0.25, -0.25, -0.25))
    [batch] = pack_rollouts([first.to_train(mask_truncated=False)], stage(micro_batch=4))
    assert batch.advantage_C.tolist() == pytest.approx(first.advantages)
    assert batch.sampler_logps_N.tolist() == [-1.0, -2.0] * 4


@pytest.mark.parametrize(
    ("homes", "count", "expected"),
    [
        ("aaaaaaaa", 4, ["aa", "aa", "aa", "aa"]),
        # Whoever trains a group, the same two make a part; with every second group each process has a half of each part.
        ("abababab", 4, ["ab", "ab", "ab", "ab"]),
        ("aabbbbaa", 4, ["aa", "bb", "bb", "aa"]),
        ("abab", 4, ["a", "b", "a", "b"]),
        # Where groups are missing, parts differ by one at most, and a step of fewer groups than parts has empty ones.
        ("ababa", 2, ["aba", "ba"]),
        ("aba", 4, ["a", "b", "a", ""]),
        ("", 2, ["", ""]),
    ],
)
def test_the_parts_of_a_step_are_the_same_whatever_process_has_which_group(homes: str, count: int, expected: list[str]) -> None:
    made, _ = sampler(lambda problem, _: "rw", stage())
    one = made.collect(0).trained[0]
    found: list[list[int]] = [[] for _ in range(count)]
    for process in "ab":
        places = [place for place, home in enumerate(homes) if home == process]
        share = StepRollouts([one] * len(places), [], places=places, count=len(homes))
        for part, members in zip(found, share.parts(count), strict=True):
            part += [place for place, _ in members]
    assert ["".join(homes[place] for place in sorted(part)) for part in found] == expected
    assert sorted(place for part in found for place in part) == list(range(len(homes)))
    whole = StepRollouts([one] * len(homes), []).parts(count)
    assert [[place for place, _ in part] for part in whole] == [sorted(part) for part in found]


def test_groups_without_signal_are_replaced_until_the_step_is_full() -> None:
    flat = {f"p{i}" for i in order(10, 0, 0)[:4:2]}
    made, engine = sampler(lambda problem, _: "rr" if problem.id in flat else "rw", stage(refill=True))
    collected = made.collect(0)
    drawn = [f"p{i}" for i in order(10, 0, 0)]
    assert ids(collected.trained) == [name for name in drawn if name not in flat][:4]
    assert ids(collected.sampled) == drawn[:6]
    assert (collected.drawn, collected.rounds) == (6, 2)
    assert [len(asked) for asked, _ in engine.calls] == [4, 2]
    assert engine.calls[0][1].seed != engine.calls[1][1].seed


def test_without_refill_groups_without_signal_are_kept() -> None:
    made, engine = sampler(lambda problem, _: "rr", stage(refill=False))
    collected = made.collect(0)
    assert (len(collected.trained), collected.rounds, len(engine.calls)) == (4, 1, 1)
    assert {advantage for rollout in collected.trained for advantage in rollout.advantages} == {0.0}


def test_refilling_ends_when_nothing_can_be_learned(caplog: pytest.LogCaptureFixture) -> None:
    made, engine = sampler(lambda problem, _: "ww", stage(refill=True))
    collected = made.collect(0)
    assert (collected.trained, collected.rounds, len(engine.calls)) == ([], MAX_ROUNDS, MAX_ROUNDS)
    assert collected.drawn == 4 * MAX_ROUNDS
    assert "no group teaches anything" in caplog.text


def test_what_could_not_be_graded_is_masked_and_counts_for_nothing() -> None:
    made, _ = sampler(lambda problem, _: "r?w!", stage(samples=4, batch=16, advantage="centred"))
    rollout = made.collect(0).trained[0]
    assert rollout.rewards == pytest.approx((1.0, math.nan, 0.0, math.nan), nan_ok=True)
    # The mean is taken over the two that were graded.
    assert rollout.advantages == pytest.approx((0.5, math.nan, -0.5, math.nan), nan_ok=True)
    part = rollout.to_train(mask_truncated=False)
    assert [completion.tokens[0] for completion in part.group.completions] == [ord("r"), ord("w")]
    assert (part.rewards, part.advantages) == ((1.0, 0.0), (0.5, -0.5))


def test_truncated_completions_can_be_left_out_of_the_loss() -> None:
    made, _ = sampler(lambda problem, _: "Rw", stage(no_stop_score=None))
    rollout = made.collect(0).trained[0]
    assert [completion.finish for completion in rollout.to_train(mask_truncated=False).group.completions] == ["length", "stop"]
    assert [completion.finish for completion in rollout.to_train(mask_truncated=True).group.completions] == ["stop"]


def test_a_step_of_faults_trains_on_nothing() -> None:
    made, _ = sampler(lambda problem, _: "??", stage())
    with pytest.raises(TuluError, match="8 of 8 completions"):
        made.collect(0)


class ScriptedRewardModel:
    """A reward model that scores a completion by its first token, and remembers what it scored."""

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores = scores
        self.scored: list[list[str]] = []

    def grade(self, items: Sequence[tuple[str, Problem]]) -> list[Verdict]:
        letters = [chr(int(text.split()[0])) for text, _ in items]
        self.scored.append(letters)
        return [Verdict(None, "error", "too long") if self.scores[x] is None else Verdict(self.scores[x]) for x in letters]


def with_reward_model(
    script: str, problems: Sequence[Problem], **fields: Any
) -> tuple[list[Rollout], ScriptedRewardModel, Steps]:
    """One step in which every problem gets the scripted completions."""
    settings = stage(prompts=len(problems), samples=len(script), batch=len(problems) * len(script), refill=False, **fields)
    reward_model = ScriptedRewardModel({"r": 3.0, "w": -2.0, "?": 1.0, "g": None})
    grader = RolloutGrader(ScriptedGrader(), cast(Any, Numbers()), problems, settings, reward_model)
    made = Steps(ScriptedEngine(lambda *_: script), grader)
    return made.collect(0).trained, reward_model, made


@pytest.mark.parametrize(
    ("signal", "expected", "scored"),
    [
        # r is right (10) and liked (3), w is wrong (0) and disliked (-2); reward_scale does not touch the model's score.
        ({}, [13.0, -2.0], "rw"),
        ({"weight": 0.5}, [11.5, -1.0], "rw"),
        ({"combine": "gate"}, [13.0, 0.0], "r"),
        ({"combine": "gate", "weight": 2.0}, [16.0, 0.0], "r"),
        # sigmoid(3) = 0.952574, sigmoid(-2) = 0.119203
        ({"transform": "sigmoid"}, [10.952574, 0.119203], "rw"),
        ({"rows": "named"}, [10.0, 0.0], ""),
    ],
)
def test_a_reward_model_beside_verifiers(signal: dict[str, Any], expected: list[float], scored: str) -> None:
    [rollout], reward_model, _ = with_reward_model(
        "rw", make_problems(1), reward_scale=10.0, reward_model={"path": "rm", **signal}
    )
    assert rollout.rewards == pytest.approx(expected, abs=1e-6)
    assert reward_model.scored == [list(scored)]
    scores = {"r": 3.0, "w": -2.0}
    preferences = [grades.preference and grades.preference.score for grades in rollout.grades]
    assert preferences == [scores[letter] if letter in scored else None for letter in "rw"]


@pytest.mark.parametrize(
    ("verifiers", "row", "expected"),
    [
        (("reward_model",), {}, [3.0, -2.0]),
        (("exact", "reward_model"), {}, [13.0, -2.0]),
        (("reward_model", "exact"), {"weights": [0.5, 2.0]}, [21.5, -1.0]),
        (("exact",), {}, [10.0, 0.0]),
    ],
)
def test_rows_name_it_among_their_verifiers(verifiers: tuple[str, ...], row: dict[str, Any], expected: list[float]) -> None:
    truth = ["x"] * len(verifiers) if len(verifiers) > 1 else None
    problem = Problem("p", (), [1], truth, verifiers, row)
    settings = {"reward_scale": 10.0, "reward_model": {"path": "rm", "rows": "named"}}
    weighted = lambda items: [  # noqa: E731
        Verdict(SCORES[int(text.split()[0])].score * (each.row.get("weights") or [1.0])[0]) for text, each in items
    ]
    made = with_reward_model("rw", [problem], **settings)[2]
    object.__setattr__(made.grader, "grader", type("Weighing", (), {"grade": staticmethod(weighted)})())
    assert made.collect(0).trained[0].rewards == pytest.approx(expected)


def test_a_score_that_failed_masks_the_completion_and_a_verifier_that_failed_needs_no_score() -> None:
    [rollout], reward_model, made = with_reward_model("rwrg?r", make_problems(1), reward_model={"path": "rm"})
    assert rollout.rewards == pytest.approx((4.0, -2.0, 4.0, math.nan, math.nan, 4.0), nan_ok=True)
    assert reward_model.scored == [["r", "w", "r", "g", "r"]]
    rows = record(made.collect(0), cast(Any, Numbers()))
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "error", "timeout", "ok"]
    assert [row["score"] for row in rows] == [1.0, 0.0, 1.0, 1.0, None, 1.0]
    assert [row["reward_model"] for row in rows] == [3.0, -2.0, 3.0, None, None, 3.0]
    found = summary(made.collect(0))
    expected = {"solved": 4 / 5, "reward_model": 7 / 4, "masked": 2 / 6, "reward": 10 / 4}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_most_scores_failing_stops_the_run() -> None:
    with pytest.raises(TuluError, match=r"2 of 3 completions, 2 times with error: too long"):
        with_reward_model("rgg", make_problems(1), reward_model={"path": "rm"})


def test_a_run_without_a_reward_model_has_no_figures_of_one() -> None:
    made, _ = sampler(lambda *_: "rw", stage())
    found = made.collect(0)
    assert "reward_model" not in summary(found)
    assert "reward_model" not in record(found, cast(Any, Numbers()))[0]


def test_an_overlong_penalty_changes_advantages_and_not_which_groups_teach() -> None:
    """DAPO asks which answers are right: a group of right ones of different lengths would teach to be short alone."""
    settings = stage(prompts=2, batch=4, overlong_buffer=7, overlong_penalty=0.7, refill=True)
    made, _ = sampler(lambda problem, _: "rr" if problem.id == "p0" else "rw", settings, count=4)
    # Completions have 2 of 8 tokens: 1 token into the buffer of 7, which is a seventh of 0.7.
    found = made.collect(0)
    assert "p0" not in ids(found.trained)
    [first, *_] = found.trained
    assert first.rewards == (1.0, 0.0)
    assert first.penalties == pytest.approx((-0.1, -0.1))
    assert first.advantages == pytest.approx((0.5, -0.5))
    assert first.to_train(mask_truncated=False).penalties == first.penalties
    assert record(found, cast(Any, Numbers()))[0]["penalty"] == pytest.approx(-0.1)
    assert summary(found)["penalty"] == pytest.approx(-0.1)


def test_a_penalty_lowers_what_a_longer_answer_is_worth() -> None:
    settings = stage(prompts=1, batch=2, overlong_buffer=7, overlong_penalty=0.7)
    made, engine = sampler(lambda *_: "rw", settings, count=1)
    long = Completion([ord("r")] * 8, [True] * 8, sampler_logps=[-1.0] * 8)
    engine._answers = lambda problem, n: [long, answer("w")]  # type: ignore[method-assign]
    [rollout] = made.collect(0).trained
    # 1 - 0.7 against 0 - 0.1: half of 0.4 apart from their mean.
    assert rollout.advantages == pytest.approx((0.2, -0.2))


def test_rewards_that_the_learner_compares_are_handed_over_as_they_are() -> None:
    made, _ = sampler(lambda *_: "rw?w", stage(samples=4, batch=16, beta=0.1, kl_in="reward", reward_scale=10.0))
    [first, *_] = made.collect(0).trained
    assert first.advantages == pytest.approx((10.0, 0.0, math.nan, 0.0), nan_ok=True)


def test_without_rewards_every_completion_is_trained_also_one_that_nobody_could_grade() -> None:
    made, _ = sampler(lambda *_: "rw?w", stage(samples=4, batch=16, advantage="none", refill=False, teacher="owner/teacher"))
    [first, *_] = made.collect(0).trained
    assert first.advantages == (0.0,) * 4
    assert len(first.to_train(mask_truncated=False).group.completions) == 4
