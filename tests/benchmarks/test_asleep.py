"""The engine that sleeps takes as long for our loop as for TRL's, and writes as much."""

import pytest

from benchmarks.asleep import LOGP, SHORTEST, asleep, seconds_of, tokens_of
from tests.benchmarks.virtual_time import VirtualClock
from tulu.rollout.fleet import Finished, Request
from tulu.types import SamplingParams

SAMPLES = 8


def test_both_sides_wait_as_long_for_a_step_and_train_as_much() -> None:
    """The longest of eight completions has 72 + 7 · 8 = 128 tokens, of 20 ms each."""
    assert seconds_of(range(SAMPLES)) == pytest.approx(2.56)
    fleet = asleep()
    fleet.clock = clock = VirtualClock()
    for engine in fleet.engines:
        engine.clock = clock
    fleet.sync(iter(()), 0)
    params = SamplingParams(SHORTEST + 8 * SAMPLES)
    wanted = [
        Request(f"{prompt}:{sample}", f"p{prompt}", [1], params, sample) for prompt in range(8) for sample in range(SAMPLES)
    ]
    fleet.submit(wanted)
    ended = [end for _ in range(SAMPLES) for end in fleet.collect(10.0)]
    assert clock.now() == pytest.approx(seconds_of(range(SAMPLES)))
    assert len(ended) == len(wanted)
    for end in ended:
        assert isinstance(end, Finished)
        assert len(end.completion.tokens) == tokens_of(int(end.key.split(":")[1]))
        assert set(end.completion.sampler_logps or ()) == {LOGP}
