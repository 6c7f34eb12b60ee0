"""The time of sampling: on paper where every answer is as long as it may be, and what must not make it longer."""

from dataclasses import replace

import pytest

from tests.config.plan_sections import RLVR
from tulu.config.cards import CARDS
from tulu.config.decoding import BANDWIDTH, LEAST, cache_a_token
from tulu.config.lengths import Lengths
from tulu.config.sampling_time import sampling
from tulu.config.schema import Rlvr
from tulu.config.sizes import Size

CARD = CARDS["h100"]
FULL = Lengths(1e12, 1000)
"""Every answer has 1,000 tokens."""
STAGE = RLVR.model_copy(update={"prompts": 1, "samples": 1, "batch": 1})


def seconds(stage: Rlvr, size: Size, answers: Lengths = FULL, processes: int = 1) -> float:
    return sampling(stage, size, CARD, processes, 0.4, 0.0, answers).seconds


def test_one_answer_reads_the_weights_for_each_of_its_tokens() -> None:
    # 2 bytes × 11.725e9 / (3.35e12 × 0.7 bytes/s) = 10 ms
    size = Size(11.725e9, 11.725e9)
    assert seconds(STAGE, size) == pytest.approx(10.0, rel=1e-6)
    # Of a mixture of experts one token reads those alone that it passes through.
    assert seconds(STAGE, replace(size, parameters=16e9)) == pytest.approx(10.0, rel=1e-6)


def test_a_token_takes_no_less_than_the_engine() -> None:
    small = Size(1e6, 1e6)
    assert seconds(STAGE, small) == pytest.approx(1000 * LEAST["vllm"])
    assert seconds(STAGE.model_copy(update={"engine": "transformers"}), small) == pytest.approx(1000 * LEAST["transformers"])


def test_keys_and_values_of_many_answers_are_read_too() -> None:
    size = Size(8e9, 8e9, layers=2, hidden=4096, kv=4096, heads=4096, windows=((None, 2),))
    a_token = 2 * 2 * 4096 * 2
    assert cache_a_token(size, 1000) == a_token
    assert cache_a_token(replace(size, windows=((100, 1), (None, 1))), 1000) == a_token / 2 * (1 + 0.1)
    stage = STAGE.model_copy(update={"samples": 128, "batch": 128})
    # Over the 1,000 tokens the cache holds 500 on average.
    expected = 1000 * (16e9 + 128 * a_token * 500) / (CARD.bandwidth * BANDWIDTH)
    assert seconds(stage, size) == pytest.approx(expected, rel=0.001)


def test_what_has_no_memory_waits() -> None:
    size = Size(1e9, 1e9, layers=80, hidden=8192, kv=8192, heads=8192, windows=((None, 80),))
    stage = STAGE.model_copy(update={"samples": 512, "batch": 512})
    found = sampling(stage, size, CARD, 1, 0.4, 0.0, FULL)
    # (0.45 × 80 GiB - 2 GB) / (2.6 MB × 500 tokens)
    assert found.at_once == pytest.approx((0.45 * 80 * 2**30 - 2e9) / (2 * 2 * 8192 * 80 * 500), rel=0.001)
    assert found.seconds > 10 * seconds(STAGE.model_copy(update={"samples": 28, "batch": 28}), size)


def test_a_model_that_one_gpu_does_not_hold_is_spread() -> None:
    assert sampling(STAGE, Size(8e9, 8e9), CARD, 8, 0.4, 0.0, FULL).gpus == 1
    large = sampling(STAGE, Size(405e9, 405e9), CARD, 64, 0.4, 0.0, FULL)
    assert large.gpus >= 32
    assert large.gpus * 0.45 * 80 * 2**30 > 2 * 405e9


@pytest.mark.parametrize("samples", [1, 64, 1024])
def test_more_gpus_and_shorter_answers_are_never_slower(samples: int) -> None:
    size = Size(7e9, 7e9, layers=32, hidden=4096, kv=4096, heads=4096, windows=((None, 32),))
    stage = STAGE.model_copy(update={"samples": samples, "batch": samples})
    by_gpus = [seconds(stage, size, Lengths(500, 2048), gpus) for gpus in (1, 2, 8, 64)]
    assert by_gpus == sorted(by_gpus, reverse=True)
    by_length = [seconds(stage, size, Lengths(mean, 2048)) for mean in (50, 200, 500, 2000)]
    assert by_length == sorted(by_length)


def test_the_share_of_memory_is_the_engines() -> None:
    from tulu.config.decoding import ENGINE_SHARE
    from tulu.rollout.engine import SHARED_SHARE

    assert SHARED_SHARE == ENGINE_SHARE
