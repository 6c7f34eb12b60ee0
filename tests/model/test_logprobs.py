"""Log-probs and entropy from hidden states: against log_softmax, gradcheck, and the same whatever the chunk."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tulu.model import logprobs
from tulu.model.logprobs import token_logps
from tulu.model.softmax import LogitRule

N, H, V = 13, 6, 17


def case(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """(hidden, weight, target, bias) with gradients."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return leaf(N, H), leaf(V, H), torch.randint(0, V, (N,), generator=generator), leaf(V) if bias else None


def full(
    hidden_NH: Tensor, weight_VH: Tensor, target_N: Tensor, bias_V: Tensor | None, temperature: float
) -> tuple[Tensor, Tensor]:
    """(log-probs, entropies) from all logits at once."""
    logps_NV = torch.log_softmax(torch.nn.functional.linear(hidden_NH, weight_VH, bias_V) / temperature, dim=-1)
    return logps_NV.gather(1, target_N[:, None])[:, 0], -(logps_NV.exp() * logps_NV).sum(-1)


@pytest.mark.parametrize("chunk", [1, 4, 13, 1000, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
def test_equals_log_softmax_whatever_the_chunk(chunk: int | None, bias: bool, temperature: float) -> None:
    hidden, weight, target, offset = case(bias=bias)
    expected, entropies = full(hidden, weight, target, offset, temperature)
    found, found_entropies = token_logps(
        hidden, weight, target, bias_V=offset, temperature=temperature, chunk=chunk, entropy=True
    )
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert torch.allclose(found_entropies, entropies, rtol=0, atol=1e-12)

    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None]
    upstream = torch.linspace(-2, 3, N, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((found * upstream).sum(), leaves),
        torch.autograd.grad((expected * upstream).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("chunk", [5, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck(chunk: int, bias: bool) -> None:
    hidden, weight, target, offset = case(bias=bias)

    def logps(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None = None) -> Tensor:
        return token_logps(hidden_NH, weight_VH, target, bias_V=bias_V, temperature=0.7, chunk=chunk)[0]

    inputs = (hidden, weight) if offset is None else (hidden, weight, offset)
    assert torch.autograd.gradcheck(logps, inputs, atol=1e-7, rtol=1e-5)


def test_only_what_is_trained_gets_a_gradient() -> None:
    hidden, weight, target, _ = case(bias=False)
    frozen = weight.detach()
    (grad,) = torch.autograd.grad(token_logps(hidden, frozen, target, chunk=4)[0].sum(), [hidden])
    (expected,) = torch.autograd.grad(full(hidden, frozen, target, None, 1.0)[0].sum(), [hidden])
    assert torch.allclose(grad, expected, atol=1e-12)
    token_logps(hidden.detach(), weight, target)[0].sum().backward()
    assert weight.grad is not None


def test_float32_is_the_default_and_bfloat16_gives_float32_out() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        hidden, weight, target, _ = case(dtype, bias=False)
        found, entropy = token_logps(hidden, weight, target, entropy=True)
        assert found.dtype == entropy.dtype == torch.float32
        expected, _ = full(hidden.double(), weight.double(), target, None, 1.0)
        assert torch.allclose(found.double(), expected, atol=tolerance, rtol=0.01 if dtype is torch.bfloat16 else 0)
        found.sum().backward()
        assert hidden.grad is not None
        assert hidden.grad.dtype == dtype


@pytest.mark.parametrize("entropy", [True, False])
def test_nothing_to_read_is_zero_tokens_with_a_graph(entropy: bool) -> None:
    _, weight, target, _ = case(bias=False)
    hidden = torch.empty(0, H, dtype=torch.float64, requires_grad=True)
    logps, entropies = token_logps(hidden, weight, target[:0], entropy=entropy)
    assert len(logps) == len(entropies) == 0
    # A row without a trained token still takes part in the backward pass of its process.
    logps.sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4, 0.0], [-1e4, 0.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    logps, entropy = token_logps(hidden, weight, torch.tensor([0, 0]), entropy=True)
    assert logps.tolist() == [0.0, -20000.0]
    assert entropy.tolist() == [0.0, 0.0]
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_a_uniform_head_on_paper() -> None:
    logps, entropy = token_logps(torch.zeros(2, H), torch.randn(V, H), torch.tensor([0, 5]), entropy=True)
    assert logps.tolist() == pytest.approx([-2.833213] * 2, abs=1e-6)  # -ln 17
    assert entropy.tolist() == pytest.approx([2.833213] * 2, abs=1e-6)


def test_the_temperature_is_that_of_the_distribution() -> None:
    hidden, weight, target, _ = case(bias=False)
    ask = partial(token_logps, hidden, weight, target, entropy=True)
    cold, hot = ask(temperature=0.5), ask(temperature=4.0)
    assert (cold[1] < hot[1]).all()
    assert not cold[1].requires_grad


@pytest.mark.parametrize("chunk", [5, 100])
@pytest.mark.parametrize("rule", [LogitRule(0.25), LogitRule(cap=2.0), LogitRule(3.0, 1.5)])
def test_capped_and_scaled_logits_are_exact(rule: LogitRule, chunk: int) -> None:
    hidden, weight, target, offset = case()
    assert offset is not None
    products = torch.nn.functional.linear(hidden, weight, offset)
    logits = rule.scale * products if rule.cap is None else rule.cap * torch.tanh(rule.scale * products / rule.cap)
    expected = torch.log_softmax(logits / 0.7, dim=-1)
    ask = partial(token_logps, temperature=0.7, chunk=chunk, rule=rule)
    found, entropy = ask(hidden, weight, target, bias_V=offset, entropy=True)
    assert torch.allclose(found, expected.gather(1, target[:, None])[:, 0], rtol=0, atol=1e-12)
    assert torch.allclose(entropy, -(expected.exp() * expected).sum(-1), rtol=0, atol=1e-12)

    def logps(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> Tensor:
        return ask(hidden_NH, weight_VH, target, bias_V=bias_V)[0]

    assert torch.autograd.gradcheck(logps, (hidden, weight, offset), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("chunk", [5, 100])
@pytest.mark.parametrize("rule", [LogitRule(), LogitRule(3.0, 1.5)], ids=["plain", "capped"])
def test_entropies_have_their_gradient_where_it_is_asked_for(rule: LogitRule, chunk: int) -> None:
    hidden, weight, target, offset = case()
    assert offset is not None

    def both(hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor) -> tuple[Tensor, Tensor]:
        options: dict[str, Any] = {"temperature": 0.7, "chunk": chunk, "rule": rule, "entropy": True}
        return token_logps(hidden_NH, weight_VH, target, bias_V=bias_V, **options, entropy_gradient=True)

    assert torch.autograd.gradcheck(both, (hidden, weight, offset), atol=1e-7, rtol=1e-5)
    leaves = (hidden, weight, offset)
    logps, entropy = both(*leaves)
    plain, _ = token_logps(hidden, weight, target, bias_V=offset, temperature=0.7, chunk=chunk, rule=rule)
    for found, expected in zip(torch.autograd.grad(logps.sum(), leaves), torch.autograd.grad(plain.sum(), leaves), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert entropy.requires_grad


def test_an_entropy_gradient_by_hand() -> None:
    # Logits 0 and ln 3: p = 1/4, 3/4 and H = 0.562335, so d H / d logit = -p (ln p + H) = 0.205990 and its negative.
    hidden = torch.ones(1, 1, dtype=torch.float64)
    weight = torch.tensor([[0.0], [1.0986122886681098]], dtype=torch.float64, requires_grad=True)
    _, entropy = token_logps(hidden, weight, torch.tensor([0]), entropy=True, entropy_gradient=True)
    entropy.sum().backward()
    assert entropy.item() == pytest.approx(0.562335, abs=1e-6)
    assert weight.grad is not None
    assert weight.grad[:, 0].tolist() == pytest.approx([0.205990, -0.205990], abs=1e-6)


def test_a_cap_by_hand() -> None:
    # Two tokens with products 3 and 0: capped at 3 they are 3·tanh(1) = 2.2848 and 0.
    logps, _ = token_logps(torch.eye(1), torch.tensor([[3.0], [0.0]]), torch.tensor([0]), rule=LogitRule(cap=3.0))
    assert logps.item() == pytest.approx(-0.0969, abs=1e-4)


@pytest.mark.parametrize("chunk", [4, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_both_passes_multiply_in_the_dtype_of_the_weight(dtype: torch.dtype, chunk: int) -> None:
    """The head of a bf16 model once went backward in float32, which a GPU does twenty times slower."""
    hidden, weight, target, offset = case(dtype)
    seen: list[tuple[torch.dtype, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                seen.append(tuple(arg.dtype for arg in args if torch.is_tensor(arg)))
            return func(*args, **(kwargs or {}))

    with Watch():
        logps, _ = token_logps(hidden, weight, target, bias_V=offset, chunk=chunk)
        logps.sum().backward()
    passes = -(-N // chunk) * (3 if chunk >= N else 4)
    assert len(seen) == passes, "forward, again where it is not kept, and a product for each of the two gradients"
    assert {found for dtypes in seen for found in dtypes} == {dtype}
    assert logps.dtype == torch.float32
    assert {leaf.grad.dtype for leaf in (hidden, weight, offset) if leaf is not None and leaf.grad is not None} == {dtype}


def test_a_float32_hidden_state_meets_a_bfloat16_weight_in_bfloat16() -> None:
    _, weight, target, _ = case(torch.bfloat16, bias=False)
    hidden = torch.randn(N, H, requires_grad=True)
    logps, _ = token_logps(hidden, weight, target)
    expected, _ = token_logps(hidden.detach().bfloat16(), weight, target)
    assert torch.equal(logps, expected)
    logps.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.float32


def test_gradients_of_many_chunks_are_added_up_in_float32() -> None:
    """1,000 times 1/256 is 3.9; added up in bfloat16 it would stop growing at 1, where 1/256 is half a step."""
    n = 1000
    weight = torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    hidden = torch.full((n, 1), 1 / 128, dtype=torch.bfloat16)
    token_logps(hidden, weight, torch.zeros(n, dtype=torch.long), chunk=1)[0].sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[3.90625], [-3.90625]]


@pytest.mark.parametrize(
    ("gibibytes", "vocabulary", "chunk"),
    [(80, 100_352, 4096), (141, 128_256, 4096), (80, 262_144, 2048), (24, 128_256, 1024), (8, 262_144, 512), (141, 500, 4096)],
)
def test_chunks_of_a_gpu_follow_from_its_memory(
    gibibytes: int, vocabulary: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 80 GiB / 16 = 5.4e9 bytes; 4,096 positions of 100,352 logits take 4.1e9 of 10 bytes each, of 262,144 logits 10.7e9.
    monkeypatch.setattr(logprobs, "_memory_of", lambda device: gibibytes << 30)
    assert logprobs.chunk_for(vocabulary, torch.device("cuda", 0)) == chunk
    assert logprobs.chunk_for(vocabulary, torch.device("cpu")) == (1 << 25) // vocabulary


def test_torchs_own_fused_loss_gives_the_same_numbers() -> None:
    """`linear_cross_entropy` has no entropy, temperature or cap, and its losses of bfloat16 are bfloat16: it is no head here."""
    hidden, weight, target, offset = case()
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=5)
    expected = -torch.nn.functional.linear_cross_entropy(
        hidden, weight, target, linear_bias=offset, reduction="none", options=options
    )
    found, _ = token_logps(hidden, weight, target, bias_V=offset, chunk=5)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    leaves = [leaf for leaf in (hidden, weight, offset) if leaf is not None]
    upstream = torch.linspace(-2, 3, N, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad((found * upstream).sum(), leaves),
        torch.autograd.grad((expected * upstream).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(got, want, rtol=0, atol=1e-12)
    narrow = torch.nn.functional.linear_cross_entropy(
        hidden.bfloat16(), weight.bfloat16(), target, reduction="none", options=options
    )
    assert narrow.dtype == torch.bfloat16
