"""What a model computes in rows of several documents is what it computes of each alone, whatever its architecture."""

import logging
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.model.architectures import ARCHITECTURES, logps, make, plain_logps
from tests.samples import gradients, largest_difference, make_group
from tulu.errors import RecipeError
from tulu.model import attention, self_check
from tulu.model.attention import SEGMENTS, segment_attention
from tulu.model.batch import pack, pack_row
from tulu.model.self_check import in_float32, lowered_thresholds
from tulu.model.trunk import Trunk

GROUPS = [make_group(0, 9, [7, 12, 30]), make_group(1, 14, [5]), make_group(2, 3, [8, 1, 90]), make_group(3, 0, [17])]
"""Documents of 16, 21, 39, 19, 11, 4, 93 and 17 tokens: on both sides of 24, where rotary scalings set in, and of a window."""


def checked(model: Any) -> Trunk:
    trunk = Trunk(model)
    trunk.adopt_segments()
    return trunk


@pytest.mark.parametrize("feature", ARCHITECTURES)
def test_log_probs_and_gradients_are_those_of_each_document_alone(feature: str) -> None:
    model, plain = make(feature), make(feature)
    trunk = checked(model)
    assert trunk.rows == ARCHITECTURES[feature][0]
    batch = pack_row(GROUPS)
    weights = torch.linspace(-1, 2, batch.n_trained)
    found, expected = logps(model, trunk, batch), plain_logps(plain, batch)
    assert (found - expected).abs().max() <= 1e-4
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert largest_difference(gradients(model), gradients(plain)) < 1e-4
    with torch.no_grad():
        for batch in pack(GROUPS, 60):
            assert (logps(model, trunk, batch) - plain_logps(plain, batch)).abs().max() <= 1e-4


@pytest.mark.parametrize("feature", ARCHITECTURES)
def test_a_frozen_model_in_bfloat16_is_read_as_one_in_float32(feature: str) -> None:
    """Where rounding decides, a router of experts looks like a leak, and a leak like rounding."""
    model, untouched = make(feature, torch.bfloat16), make(feature, torch.bfloat16)
    assert checked(model).rows == ARCHITECTURES[feature][0]
    for (name, found), expected in zip(model.named_parameters(), untouched.parameters(), strict=True):
        assert found.dtype == torch.bfloat16, name
        assert torch.equal(found, expected), name


def test_weights_are_narrow_again_after_an_error_in_the_middle() -> None:
    model = make("a window", torch.bfloat16)
    embedding = model.model.embed_tokens.weight
    seen = []

    def fail(module: Any, args: Any) -> None:
        seen.append(args[0].dtype)
        raise RuntimeError("in the middle")

    model.model.layers[1].mlp.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"), in_float32(model):
        model(input_ids=torch.arange(5)[None])
    assert seen == [torch.float32]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.model.embed_tokens.weight is embedding
    assert all(len(module._forward_hooks) == 0 for module in model.modules())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_soft_cap_that_is_left_out_is_found_in_any_dtype(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A cap of 50, as Gemma 2 has it, moves the hidden states of a random model by less than the rounding of bfloat16."""

    def uncapped(*tensors: Tensor, softcap: float | None = None, **options: Any) -> Any:
        return segment_attention(*tensors, **options)  # type: ignore[arg-type]

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, SEGMENTS, uncapped)
    monkeypatch.setattr(self_check, "segment_attention", uncapped)
    trunk = checked(make("soft cap and windows", dtype, attn_logit_softcapping=50.0))
    assert trunk.rows == "padded"
    assert trunk.owner.config._attn_implementation == "eager"
    assert "its attention is not segment attention" in caplog.text


@torch.no_grad()
def test_a_frozen_model_in_bfloat16_has_its_soft_cap() -> None:
    """Against float32 it is off by no more than transformers' own eager attention in bfloat16 is."""
    batch = pack_row(GROUPS)
    model = make("soft cap and windows", torch.bfloat16)
    exact = plain_logps(make("soft cap and windows", torch.bfloat16).float(), batch)
    eager = plain_logps(make("soft cap and windows", torch.bfloat16), batch)
    found = logps(model, checked(model), batch)
    assert (found - exact).abs().mean() < 1.5 * (eager - exact).abs().mean()


@torch.no_grad()
@pytest.mark.parametrize("feature", ["a window", "windows in some layers", "sinks and windows", "two rotary embeddings"])
def test_a_window_that_is_left_out_is_found_beyond_it(
    feature: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def whole(*tensors: Tensor, sliding_window: int | None = None, **options: Any) -> Any:
        return segment_attention(*tensors, **options)  # type: ignore[arg-type]

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, SEGMENTS, whole)
    assert checked(make(feature)).rows == "padded"
    assert "beyond its window" in caplog.text


@torch.no_grad()
@pytest.mark.parametrize("feature", ["LongRoPE", "dynamic NTK"])
def test_factors_by_the_longest_document_of_the_row_would_be_found(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tulu.model.rope.RopeByLength._by_document", lambda *arguments: None)
    trunk = checked(make(feature))
    assert trunk.rows == "single"
    batch = pack_row(GROUPS)
    assert (logps(trunk.owner, trunk, batch) - plain_logps(make(feature), batch)).abs().max() <= 1e-4


@pytest.mark.parametrize("feature", ARCHITECTURES)
def test_thresholds_are_as_before(feature: str) -> None:
    model, untouched = make(feature), make(feature)
    checked(model)

    def numbers(model: Any) -> list[dict[str, Any]]:
        holders = [model.config.to_dict(), *(vars(module) for module in model.modules())]
        return [{name: value for name, value in fields.items() if isinstance(value, int | float | str)} for fields in holders]

    assert numbers(model) == numbers(untouched)
    found, expected = (dict(each.named_buffers(remove_duplicate=False)) for each in (model, untouched))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_lowering_reaches_configuration_and_modules_and_ends_with_an_error() -> None:
    model = make("sinks and windows")
    layer = model.model.layers[0].self_attn

    def fail() -> None:
        with lowered_thresholds(model) as any_lowered:
            assert any_lowered
            assert (model.config.sliding_window, layer.sliding_window) == (6, 6)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert (model.config.sliding_window, layer.sliding_window) == (64, 64)
    with lowered_thresholds(make("learned positions")) as any_lowered:
        assert not any_lowered


@torch.no_grad()
def test_one_document_at_a_time_needs_whole_weights(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="tulu"):
        checked(make("sparse attention"))
    assert "one document at a time, which is slow" in caplog.text
    monkeypatch.setattr("tulu.model.trunk.is_sharded", lambda parameter: True)
    with pytest.raises(RecipeError, match="Set sharding to zero2 or less"):
        checked(make("sparse attention"))
