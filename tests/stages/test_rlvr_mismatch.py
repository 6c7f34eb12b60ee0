"""The RLVR stage with engines whose log-probs are not the learner's: the run stops, and says which engine and by how much."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from tests.stages.test_rlvr_reward_model import Place
from tulu.model.policy import Policy
from tulu.rollout.engines import make_engine
from tulu.rollout.fleet import Ended, Finished, sampled_by
from tulu.rollout.local_fleet import LocalFleet
from tulu.rollout.team import SharedEngine
from tulu.stages import rlvr

ENGINES = 4
Off = Callable[[str, int], float]
"""By how many nats the log-probs of an engine are off, by its name and the version of its weights."""


class OffFleet(LocalFleet):
    """The engine of this process under the names of four, whose log-probs are true but for what `off` adds."""

    off: Off

    def collect(self, timeout: float) -> list[Ended]:
        """What ended, with log-probs that are off."""
        ended = super().collect(timeout)
        for place, end in enumerate(ended):
            if isinstance(end, Finished) and end.completion.sampler_logps is not None:
                # By its place within its group, whatever ended together with it.
                name = f"engine-{int(end.key.rpartition(':')[2]) % ENGINES + 1}"
                [(_, version)] = end.completion.versions
                logps = [logp + self.off(name, version) for logp in end.completion.sampler_logps]
                ended[place] = replace(end, completion=sampled_by(name, replace(end.completion, sampler_logps=logps), None))
        return ended


@pytest.fixture
def call(tmp_path: Path, tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    place = Place(tmp_path, tiny_model("olmo2"))

    def run(off: Off, **fields: Any) -> Result:
        def fleet_of(stage: Any, spec: Any, policy: Policy, team: Any) -> OffFleet:
            fleet = OffFleet(SharedEngine(make_engine(stage.engine, spec, policy), team))
            fleet.off = off
            return fleet

        monkeypatch.setattr(rlvr, "fleet_of", fleet_of)
        # Some rewards differ, and the policy hardly moves: what is off is what was put there.
        steady = {
            "verifier": place.verifier,
            "learning_rate": 1e-6,
            "steps": 3,
            "save_every": 1,
            "max_tokens": 16,
            "max_length": 80,
            # Each engine has tokens enough in each step, whatever the name of the folder, from which samples are seeded, makes
            # short: every group is trained, and there are several.
            "refill": False,
            "prompts": 8,
            "samples": 4,
            "batch": 32,
        }
        return place.call(**{**steady, **fields})

    return run


def steps(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs" / "tiny" / "rlvr" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def told(result: Result, *words: str) -> None:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.stderr
    for word in (*words, "they do not hold the same weights", "The checkpoint before is intact. Run the same command again"):
        assert word in " ".join(result.stderr.split()), result.stderr


@pytest.mark.parametrize("max_staleness", [0, 8])
def test_a_sampler_that_is_3_nats_off_stops_the_first_step(
    max_staleness: int, call: Callable[..., Result], tmp_path: Path
) -> None:
    """However far it may run ahead: tokens of the present weights have no excuse."""
    result = call(lambda engine, version: 3.0, max_staleness=max_staleness)
    told(result, "step 1: learner and its 4 engines disagree by 3.00 nats a token on", "where 0.50 are allowed")
    assert steps(tmp_path) == []


def test_one_wrong_engine_of_several_stops_the_run_and_is_named(call: Callable[..., Result], tmp_path: Path) -> None:
    """It is wrong from the second weights on. All four together are a quarter of 1.6, which is less than half a nat, off."""
    result = call(lambda engine, version: 1.6 * (engine == "engine-3" and version > 0))
    told(result, "step 2: learner and engine-3, one of 4 engines, disagree by 1.60 nats a token on", "where 0.50 are allowed")
    [first] = steps(tmp_path)
    means = {name: first[f"engine/engine-{name}/mismatch"] for name in range(1, 5)}
    assert all(mean < 1e-4 for mean in means.values()), means

    # Mended, the same command goes on behind the checkpoint.
    again = call(lambda engine, version: 0.0)
    assert again.exit_code == 0, again.output
    assert [line["step"] for line in steps(tmp_path)] == [1, 2, 3]


def test_older_tokens_are_judged_by_their_own_age(call: Callable[..., Result], tmp_path: Path) -> None:
    """With `max_staleness` 2 the first weights sample what the first three steps train on, the second what the fourth does."""
    result = call(lambda engine, version: 0.4 * (version == 0), max_staleness=2, steps=4)
    assert result.exit_code == 0, result.output
    lines = steps(tmp_path)
    assert [line["staleness"] for line in lines] == [0.0, 1.0, 2.0, 2.0]
    assert [round(line["mismatch"], 1) for line in lines] == [0.4, 0.4, 0.4, 0.0]


def test_tokens_that_are_one_step_old_may_be_a_nat_off_and_no_more(call: Callable[..., Result], tmp_path: Path) -> None:
    """What the weights behind step 4 sampled is trained one step later."""
    result = call(lambda engine, version: 2.0 * (version > 3) + 0.8 * (version in (1, 2)), max_staleness=1, steps=8)
    told(result, "disagree by 2.00 nats a token on", "tokens of weights one step older, where 1.00 are allowed")
    # What waited in the journal is off too, and is not trained by the next session.
    again = call(lambda engine, version: 0.0, max_staleness=1, steps=8)
    assert again.exit_code == 0, again.output
    assert len(steps(tmp_path)) == 8
    assert max(line["mismatch"] for line in steps(tmp_path)[5:]) < 0.01
