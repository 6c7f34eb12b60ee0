"""A run whose weights never moved has not trained: it says so with figures, writes no model, and says so again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.test_bad_input import Place, complained
from tests.train.test_run import opened
from tulu.errors import TrainingError
from tulu.train.run import Run
from tulu.train.untrained import why_untrained


@pytest.mark.parametrize("refill", ["true", "false"])
def test_rlvr_on_problems_that_no_sample_solves_ends_with_exit_code_1(
    refill: str, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    """Without `refill` the optimizer steps, on gradients that are all 0."""
    place = Place(tmp_path, tiny_model("olmo2"))
    command = ("rlvr", "rlvr.steps=2", f"rlvr.refill={refill}", f"rlvr.start={tiny_model('olmo2')}")
    for _ in range(2):
        failed = place.call(*command)
        complained(failed, 1, "0 of 2 steps trained, so no model was written", "of all completions 0% solved")
        complained(failed, 1, "rlvr.samples", "--fresh")
        assert not (place.runs / "tiny" / "rlvr" / "model").exists()
    assert "at step 2" in failed.output, "the second time the steps are not done again"


def test_of_steps_that_did_not_train_some_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tulu")
    run = stepped(tmp_path, 1.0, 0.0, 1.0)
    run.finish(save_nothing)
    assert "sft: 2 of 3 steps trained" in caplog.text
    assert (run.manifest()["steps"], run.manifest()["trained"]) == (3, 2)


def test_what_was_trained_before_a_resume_counts(tmp_path: Path) -> None:
    stepped(tmp_path, 1.0)
    again = opened(tmp_path)
    again.resume()
    assert (again.step, again.trained) == (1, 1)
    take(again, 0.0)
    assert again.trained == 1
    again.finish(save_nothing)


def test_a_checkpoint_of_an_earlier_version_does_not_say_what_was_trained(tmp_path: Path) -> None:
    run = opened(tmp_path)
    run.pin(data="as it is")
    run.step = 1
    run.checkpoints.save(1, {"step": 1, "seconds": 0.0, "extra": {}})
    again = opened(tmp_path)
    again.resume()
    assert again.trained is None
    again.finish(save_nothing)


@pytest.mark.parametrize("gradients", [(0.0,), (0.0, 0.0)])
def test_no_gradient_no_model(gradients: tuple[float, ...], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"0 of {len(gradients)} steps trained.*every gradient was 0"):
        stepped(tmp_path, *gradients).finish(save_nothing)


def test_float16_that_overflows_at_every_step(tmp_path: Path) -> None:
    """The first steps of float16 are passed over until its scale fits; a run of such steps alone has trained nothing."""
    with pytest.raises(TrainingError, match=r"(?s)0 of 2 steps trained.*overflowed in float16.*sft\.precision to bf16 or fp32"):
        stepped(tmp_path, float("inf"), float("inf"), precision="fp16").finish(save_nothing)


def test_the_figures_are_means_over_the_steps() -> None:
    steps: list[dict[str, Any]] = [{"solved": 0.0, "truncated": 1.0}, {"solved": 0.5, "truncated": None}]
    assert "of all completions 25% solved, 100% truncated)" in why_untrained("rlvr.math", steps, overflowed=False)
    assert "all completions with a mean score of 1.75, 100% trunc" in why_untrained(
        "rlvr", [{"solved": 1.75, "truncated": 1.0}], overflowed=False
    ), "an environment's score is no share"
    assert "rlvr.math.samples" in why_untrained("rlvr.math", steps, overflowed=False)


def test_a_teacher_that_is_the_policy_teaches_nothing() -> None:
    """Without rewards, or beside rewards that are alike."""
    steps: list[dict[str, Any]] = [{"solved": 0.5, "teacher_kl": 0.0}, {"solved": 0.5, "teacher_kl": -1e-8}]
    told = why_untrained("rlvr", steps, overflowed=False)
    assert "the teacher says of every token what the policy says" in told
    assert "rlvr.teacher" in told
    assert "rewards within each group" in why_untrained("rlvr", [{"solved": 0.0, "teacher_kl": 0.3}], overflowed=False)


def save_nothing(folder: Path, writes: bool) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def take(run: Run, gradient: float) -> None:
    """One step whose gradients all have this size."""
    module = run.parallel.module
    assert module is not None
    # A loss of weights times the gradient has that gradient.
    loss = torch.stack([(parameter * gradient).sum() for parameter in module.parameters()]).sum()
    run.parallel.backward(loss, last=True)
    run.parallel.finish_step(torch.zeros(1))
    run.step += 1
    run.end_step(last=True)


def stepped(folder: Path, *gradients: float, **fields: Any) -> Run:
    run = opened(folder, **fields)
    run.pin(data="as it is")
    for gradient in gradients:
        take(run, gradient)
    return run
