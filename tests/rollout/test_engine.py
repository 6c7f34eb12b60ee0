"""The requests that every engine refuses, and the messages."""

import pytest

from tulu.errors import EngineError
from tulu.rollout.engine import STALE, check_request
from tulu.types import Problem, SamplingParams


def problem(length: int) -> Problem:
    return Problem("sums:3", (), list(range(length)), None, ())


@pytest.mark.parametrize(
    ("version", "length", "n", "max_tokens", "message"),
    [
        (STALE, 3, 1, 4, "stale.*sync it"),
        (0, 0, 1, 4, "sums:3: the prompt is empty"),
        (0, 7, 1, 4, "sums:3: a prompt of 7 tokens and max_tokens 4 exceed the 10 tokens"),
        (0, 3, 0, 4, "0 samples"),
        (0, 3, 1, 0, "at most 0 tokens"),
    ],
)
def test_what_cannot_be_sampled_is_refused(version: int, length: int, n: int, max_tokens: int, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_request(version, [problem(length)], n, SamplingParams(max_tokens), 10)


def test_a_prompt_that_just_fits_is_not_refused() -> None:
    check_request(0, [problem(6)], 1, SamplingParams(max_tokens=4, temperature=0), 10)
