"""The softmax in one pass: what it gives is what the plain one gives, and it is taken only where it is exact and faster."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tulu.model import logprobs, softmax
from tulu.model.logprobs import token_logps
from tulu.model.softmax import DEFINITION, PLAIN, LogitRule, Softmax, chosen, faster_and_exact

CPU = torch.device("cpu")
RULES = [LogitRule(), LogitRule(scale=0.3), LogitRule(cap=5.0), LogitRule(scale=2.0, cap=3.0)]


def case() -> tuple[Tensor, Tensor, Tensor]:
    """(hidden, weight, target)"""
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(size, 6, generator=random, dtype=torch.float64).requires_grad_() for size in (13, 17))
    return hidden, weight, torch.randint(0, 17, (13,), generator=random)


@pytest.fixture
def _definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "chosen", lambda *settings: DEFINITION)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [4, 100])
def test_one_pass_gives_what_the_plain_one_gives(
    rule: LogitRule, temperature: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, weight, target = case()
    upstream = torch.linspace(-2, 3, 13, dtype=torch.float64)
    results = []
    for version in (PLAIN, DEFINITION):
        monkeypatch.setattr(logprobs, "chosen", lambda *settings, version=version: version)
        logps, entropies = token_logps(hidden, weight, target, temperature=temperature, chunk=chunk, entropy=True, rule=rule)
        results.append([logps, entropies, *torch.autograd.grad((logps * upstream).sum(), [hidden, weight])])
    for found, expected in zip(results[1], results[0], strict=True):
        assert (found - expected).abs().max() < 1e-12


@pytest.mark.usefixtures("_definition")
def test_the_gradient_in_one_pass_is_that_of_differences() -> None:
    hidden, weight, target = case()
    rule = LogitRule(scale=1.5, cap=2.0)
    assert torch.autograd.gradcheck(
        lambda h, w: token_logps(h, w, target, temperature=0.7, chunk=5, rule=rule)[0], (hidden, weight)
    )


@pytest.mark.usefixtures("_definition")
def test_logits_of_a_thousand_do_not_overflow() -> None:
    logps, entropy = token_logps(torch.eye(2), torch.tensor([[1000.0, 0.0], [0.0, -1000.0]]), torch.tensor([0, 1]), entropy=True)
    assert logps.tolist() == [0.0, -1000.0]
    assert entropy.tolist() == [0.0, 0.0]


def test_a_cpu_and_double_precision_compute_operation_by_operation() -> None:
    assert chosen(CPU, 17, torch.float32, 1.0, LogitRule(), False) is PLAIN
    assert chosen(torch.device("cuda", 0), 17, torch.float64, 1.0, LogitRule(), False) is PLAIN


def half_gradient(*arguments: Any) -> Tensor:
    return 0.5 * DEFINITION.gradient(*arguments)


def off_by_a_thousandth(*arguments: Any) -> Any:
    logps, *others = DEFINITION.read(*arguments)
    return 1.001 * logps, *others


@pytest.fixture
def clock() -> Callable[..., float]:
    """The plain one takes a second, every other as long as it says."""
    times = iter([0.5, 1.0])
    return lambda function, device: next(times)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES)
def test_an_exact_and_faster_version_is_taken(dtype: torch.dtype, rule: LogitRule, clock: Callable[..., float]) -> None:
    assert faster_and_exact(DEFINITION, CPU, 50, dtype, 0.8, rule, True, clock) is DEFINITION


@pytest.mark.parametrize(
    "wrong", [replace(DEFINITION, gradient=half_gradient), replace(DEFINITION, read=off_by_a_thousandth)], ids=["half", "off"]
)
def test_a_wrong_version_is_not_taken(wrong: Softmax, clock: Callable[..., float]) -> None:
    assert faster_and_exact(wrong, CPU, 50, torch.bfloat16, 1.0, LogitRule(), False, clock) is PLAIN


def test_a_slow_version_is_not_taken() -> None:
    assert faster_and_exact(DEFINITION, CPU, 50, torch.bfloat16, 1.0, LogitRule(), False, lambda *_: 1.0) is PLAIN


def test_a_compiler_that_fails_leaves_the_plain_one(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def unavailable() -> Softmax:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(softmax, "compiled", unavailable)
    monkeypatch.setattr(softmax, "find_spec", lambda name: name)
    assert chosen(torch.device("cuda", 7), 99, torch.bfloat16, 1.0, LogitRule(), False) is PLAIN
    assert "no compiler" in caplog.text


def test_what_is_timed_is_both_passes() -> None:
    calls = []
    assert softmax.seconds(lambda: calls.append(1), CPU) >= 0
    assert len(calls) == softmax.REPEATS + 1
