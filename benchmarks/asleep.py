"""Engines that sleep as long as a GPU would take and write nothing, for both sides of `benchmarks.rlvr --engine asleep`.

    python -m benchmarks.asleep rlvr RECIPE ...      the command line of tulu over such an engine

The sample of a prompt says how long a completion is, so that both sides train equally many tokens, and a decoding step takes
equally long for both, however many completions are in it.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.sleeping_fleet import SleepingFleet
from tulu.cli import main
from tulu.rollout import mismatch
from tulu.rollout.fleet import Request
from tulu.stages import rlvr

TOKEN_SECONDS = 0.02
"""A decoding step of a 7B model on an H100 with dozens of completions in flight (docs/performance.md), rounded."""
SHORTEST, FURTHER = 72, 8
"""Tokens of a prompt's first completion, and how many more each next one has."""
ROOM = 64
"""Completions that the engine works on at a time, which is one step's."""
LOGP = -5.55
"""What it says of every token: about what a random model of 258 tokens says."""


def tokens_of(sample: int) -> int:
    """The length of a completion."""
    return SHORTEST + FURTHER * sample


class Steady:
    """An engine whose decoding step always takes as long, and which reads prompts in no time."""

    def step_seconds(self, writing: float, cached: float) -> float:
        """A decoding step."""
        return TOKEN_SECONDS

    def prompt_seconds(self, tokens: float) -> float:
        """Reading a prompt."""
        return 0.0


def seconds_of(samples: Sequence[int]) -> float:
    """How long such an engine takes for completions that begin together."""
    return TOKEN_SECONDS * max(map(tokens_of, samples))


def asleep(*_: Any) -> SleepingFleet:
    """The fleet in place of the one that the recipe asks for."""

    def length(request: Request) -> int:
        return tokens_of(request.sample)

    return SleepingFleet(Steady(), length, engines=1, room=ROOM, logp=LOGP)


if __name__ == "__main__":
    rlvr.fleet_of = asleep  # type: ignore[assignment]
    # Its tokens are not sampled from the model, so the learner must not compare what it says of them.
    mismatch.LIMIT = float("inf")
    main()
