"""Tokens are drawn from the distribution of the logits, with its log-probs. The random numbers do not depend on the batch."""

import math
from collections.abc import Sequence

import pytest
import torch

from tulu.data.chat import make_byte_tokenizer
from tulu.rollout.sampling import StopTexts, draw, nucleus, uniforms

LOGITS = [math.log(part) for part in (0.1, 0.2, 0.3, 0.4)]


def drawn(uniform: Sequence[float], temperature: float = 1.0, top_p: float = 1.0) -> tuple[list[int], list[float]]:
    tokens_R, logps_R = draw(torch.tensor([LOGITS] * len(uniform)), torch.tensor(uniform), temperature, top_p)
    return tokens_R.tolist(), logps_R.exp().tolist()


def test_the_distribution_function_is_inverted() -> None:
    tokens, probs = drawn([0.0, 0.09, 0.11, 0.29, 0.31, 0.59, 0.61, 0.99])
    assert tokens == [0, 0, 1, 1, 2, 2, 3, 3]
    assert probs == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4])


def test_temperature_one_half_squares_the_probabilities() -> None:
    tokens, probs = drawn([0.02, 0.1, 0.4, 0.9], temperature=0.5)
    assert tokens == [0, 1, 2, 3]
    assert probs == pytest.approx([1 / 30, 4 / 30, 9 / 30, 16 / 30])


def test_temperature_zero_takes_the_largest_with_its_own_probability() -> None:
    tokens, probs = drawn([0.0, 0.99], temperature=0)
    assert tokens == [3, 3]
    assert probs == pytest.approx([0.4, 0.4])


def test_top_p_keeps_the_fewest_that_reach_it_and_renormalises() -> None:
    kept = nucleus(torch.tensor([LOGITS]), 0.6).isfinite().tolist()
    assert kept == [[False, False, True, True]]
    tokens, probs = drawn([0.0, 0.42, 0.43, 0.99], top_p=0.6)
    assert tokens == [2, 2, 3, 3]
    assert probs == pytest.approx([3 / 7, 3 / 7, 4 / 7, 4 / 7])
    assert nucleus(torch.tensor([LOGITS]), 0.1).isfinite().sum() == 1, "the most likely token is always kept"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_logits_that_are_no_numbers_give_a_token_that_exists_and_a_log_prob_of_nan(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[math.nan] * 4, [0.0] * 4, [0.0, math.nan, 0.0, math.inf]])
    tokens, logps = draw(logits, torch.tensor([0.5, 0.5, 0.99]), temperature, top_p)
    assert all(0 <= token < 4 for token in tokens.tolist())
    assert [math.isnan(logp) for logp in logps.tolist()] == [True, False, True]


def test_a_token_without_probability_is_never_drawn() -> None:
    # The largest float below 1 times a total that rounds up would point past the last token that has any probability.
    logits_RV = torch.randn(5000, 258, generator=torch.Generator().manual_seed(0)) * 3
    logits_RV[:, 100:] = float("-inf")
    logits_RV[:, 0] = float("-inf")
    for uniform in (0.0, 1 - 2**-24):
        tokens_R, logps_R = draw(logits_RV, torch.full((5000,), uniform))
        assert int(tokens_R.min()) >= 1
        assert int(tokens_R.max()) < 100
        assert logps_R.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_frequencies_follow_the_distribution(temperature: float) -> None:
    """Chi-square over 16 tokens and 40,000 draws. Its mean is 15, and it exceeds 50.5 for one seed in 100,000."""
    logits_V = torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    uniform_R = uniforms(0, "a problem", 400, 100).flatten()
    tokens_R, _ = draw(logits_V.float().expand(40_000, -1), uniform_R, temperature)
    expected_V = (logits_V / temperature).softmax(0) * 40_000
    observed_V = torch.bincount(tokens_R, minlength=16)
    assert float(((observed_V - expected_V) ** 2 / expected_V).sum()) < 50.5


def test_random_numbers_are_a_function_of_seed_and_problem() -> None:
    assert torch.equal(uniforms(1, "a", 2, 50), uniforms(1, "a", 2, 50))
    others = [uniforms(2, "a", 2, 50), uniforms(1, "b", 2, 50), uniforms(12, "", 2, 50)]
    for other in others:
        assert not torch.equal(uniforms(1, "a", 2, 50), other)
    rows = uniforms(1, "a", 2, 50)
    assert not torch.equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the answer is 7\n\n", True),
        ("the answer is 7\n", False),
        ("x" * 40 + "</answer>", True),
        ("x" * 40 + "</answer", False),
        ("é" * 20 + "\n\n", True),
    ],
)
def test_stop_texts_are_found_at_the_end_of_a_long_completion(text: str, found: bool) -> None:
    tokenizer = make_byte_tokenizer()
    stops = StopTexts(tokenizer, ["\n\n", "</answer>"])
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert stops.contained([tokens[-stops.window :]]) == [found]
