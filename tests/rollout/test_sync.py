"""Weights arrive in the other process as they were sent, or are refused with the name of the tensor."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tulu.errors import EngineError
from tulu.rollout.sync import Parcel, TensorInfo, pack_weights, read_shapes, verify_weights

WEIGHTS = {
    "embed.weight": torch.arange(12, dtype=torch.float32).reshape(4, 3),
    "norm.weight": torch.tensor([1.0, 1 / 3, -2.0]),
    "scale": torch.tensor(0.1),
    "count": torch.tensor([1, 2], dtype=torch.int64),
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}
Damage = Callable[[Parcel], Parcel]


def sent(dtype: torch.dtype = torch.float32) -> Parcel:
    (parcel,) = pack_weights(WEIGHTS.items(), dtype)
    return parcel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_in_the_engine_dtype(dtype: torch.dtype) -> None:
    arrived = dict(verify_weights(sent(dtype).data, sent(dtype).infos, SHAPES, dtype))
    assert list(arrived) == list(WEIGHTS)
    for name, tensor in WEIGHTS.items():
        expected = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert arrived[name].dtype == expected.dtype
        assert torch.equal(arrived[name], expected)


def test_a_buffer_keeps_its_dtype() -> None:
    # 1 + 2⁻¹⁶ is 1 in bfloat16.
    bias = torch.nn.Buffer(torch.tensor([1.0 + 2**-16]))
    (parcel,) = pack_weights([("gate.bias", bias), ("norm.weight", torch.ones(1))], torch.bfloat16)
    shapes = {"gate.bias": (1,), "norm.weight": (1,)}
    arrived = dict(verify_weights(parcel.data, parcel.infos, shapes, torch.bfloat16))
    assert arrived["gate.bias"].item() == 1.0 + 2**-16
    assert arrived["norm.weight"].dtype == torch.bfloat16


def test_parcels_are_cut_by_size_and_lose_nothing() -> None:
    cut = list(pack_weights(WEIGHTS.items(), torch.float32, parcel_bytes=32))
    # The 48 bytes of the first tensor exceed a parcel by themselves; 12 + 4 + 16 bytes fill the second.
    assert [list(parcel.infos) for parcel in cut] == [["embed.weight"], ["norm.weight", "scale", "count"]]


def test_read_only_memory_is_copied() -> None:
    parcel = sent()
    for array in parcel.data.values():
        array.flags.writeable = False
    arrived = dict(verify_weights(parcel.data, parcel.infos, SHAPES, torch.float32))
    arrived["norm.weight"].zero_()
    assert parcel.data["norm.weight"].any()


def one_bit(parcel: Parcel) -> Parcel:
    array = parcel.data["norm.weight"].copy()
    array[5] ^= 1
    return replace(parcel, data={**parcel.data, "norm.weight": array})


def swapped(parcel: Parcel) -> Parcel:
    data = dict(parcel.data)
    data["count"], data["scale"] = data["scale"], data["count"]
    return replace(parcel, data=data)


def without(name: str, parcel: Parcel, *, announced: bool) -> Parcel:
    infos = {key: info for key, info in parcel.infos.items() if announced or key != name}
    return Parcel(infos, {key: array for key, array in parcel.data.items() if key != name})


def claiming(name: str, parcel: Parcel, **fields: object) -> Parcel:
    return replace(parcel, infos={**parcel.infos, name: replace(parcel.infos[name], **fields)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (one_bit, r"norm\.weight is corrupted"),
        (swapped, r"(scale|count) is corrupted"),
        (lambda parcel: without("scale", parcel, announced=False), "scale is missing"),
        (lambda parcel: without("scale", parcel, announced=True), "scale was announced and did not arrive"),
        (lambda parcel: claiming("embed.weight", parcel, shape=(3, 4)), r"embed\.weight has shape \(3, 4\).*\(4, 3\)"),
        (lambda parcel: claiming("embed.weight", parcel, dtype=torch.float16), r"embed\.weight comes as torch\.float16"),
        (lambda parcel: claiming("scale", parcel, digest="0" * 32), "scale is corrupted"),
        (
            lambda parcel: Parcel({**parcel.infos, "new": TensorInfo((1,), torch.float32, "")}, parcel.data),
            "new is not a weight of the engine's model",
        ),
    ],
)
def test_a_damaged_set_is_refused_by_name(damage: Damage, message: str) -> None:
    parcel = damage(sent())
    with pytest.raises(EngineError, match=message):
        verify_weights(parcel.data, parcel.infos, SHAPES, torch.float32)


@pytest.mark.parametrize("family", ["olmo2", "olmoe"])
def test_the_policy_sends_what_the_checkpoint_holds(tiny_model: Callable[..., Path], family: str) -> None:
    from tulu.model.policy import Policy

    folder = tiny_model(family)
    sent_shapes = {name: tuple(tensor.shape) for name, tensor in Policy.load(folder).weights()}
    assert sent_shapes == read_shapes(folder, tied=False)


def test_a_tied_head_is_not_expected(tiny_model: Callable[..., Path]) -> None:
    from tulu.model.policy import Policy

    folder = tiny_model("olmo2", tie_word_embeddings=True)
    sent_names = {name for name, _ in Policy.load(folder).weights()}
    assert "lm_head.weight" not in sent_names
    assert sent_names == set(read_shapes(folder, tied=True))


def test_a_torch_checkpoint_is_read_by_its_headers(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 3), "model.rotary_emb.inv_freq": torch.zeros(4)}, tmp_path / "pytorch_model.bin")
    assert read_shapes(tmp_path, tied=False) == {"a": (2, 3)}


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no weights in it"):
        read_shapes(tmp_path, tied=False)
