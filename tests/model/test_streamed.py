"""Files that are written one tensor at a time: what safetensors reads of them, and what happens where the disk refuses."""

import errno
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.conftest import make_tiny_model
from tulu.model import streamed
from tulu.model.policy import Policy
from tulu.model.streamed import NAMES, Layout, Planned, write_streamed


def every_kind() -> dict[str, Tensor]:
    """A tensor of each dtype, of odd sizes, one of them a number and one empty."""
    random = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (7,), (), (0, 4), (1, 1, 9), (5,), (3,), (11,), (13,), (3, 3)]
    return {
        f"weight.{number}": torch.randint(0, 2 if dtype == torch.bool else 100, shape, generator=random).to(dtype)
        for number, (dtype, shape) in enumerate(zip(NAMES, shapes, strict=True))
    }


def planned(weights: dict[str, Tensor]) -> dict[str, Planned]:
    return {name: Planned(tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}


def test_safetensors_reads_every_dtype_and_shape(tmp_path: Path) -> None:
    weights = every_kind()
    # They may come in any order.
    write_streamed(reversed(list(weights.items())), planned(weights), tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_files_end_at_the_largest_size_and_an_index_names_them(tmp_path: Path) -> None:
    """Of 400 bytes each: two fit a file of 1,000 bytes, and one of 1,200 has a file of its own."""
    sizes = {"a": 100, "b": 100, "c": 100, "d": 300, "e": 100}
    weights = {name: torch.full((size,), float(number)) for number, (name, size) in enumerate(sizes.items())}
    write_streamed(weights.items(), planned(weights), tmp_path, largest=1000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = [f"model-0000{number}-of-00004.safetensors" for number in (1, 1, 2, 3, 4)]
    assert index == {"metadata": {"total_size": 4 * 700}, "weight_map": dict(zip(sizes, files, strict=True))}
    found = {name: tensor for file in set(files) for name, tensor in load_file(tmp_path / file).items()}
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_transformers_loads_several_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    policy = Policy.load(make_tiny_model(tmp_path / "model", "olmoe"))
    monkeypatch.setattr(streamed, "Layout", lambda tensors, _: Layout(tensors, 50_000))
    policy.save(tmp_path / "saved")
    assert len(list((tmp_path / "saved").glob("model-*.safetensors"))) > 3
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in before.state_dict().items())
    assert Policy.load(tmp_path / "saved").digest() == policy.digest()


def test_one_tensor_is_alive_at_a_time(tmp_path: Path) -> None:
    """The next one is not made before the last one is gone."""
    alive: list[Any] = []

    def made() -> Iterator[tuple[str, Tensor]]:
        for number in range(4):
            assert not any(reference() is not None for reference in alive), number
            tensor = torch.ones(3)
            alive.append(weakref.ref(tensor))
            weight = f"w{number}", tensor
            del tensor
            yield weight
            del weight

    write_streamed(made(), {f"w{number}": Planned((3,), torch.bfloat16) for number in range(4)}, tmp_path)
    assert len(load_file(tmp_path / "model.safetensors")) == 4


def test_other_tensors_than_planned_are_refused(tmp_path: Path) -> None:
    plan = {"a": Planned((2,), torch.float32), "b": Planned((2,), torch.float32)}
    with pytest.raises(ValueError, match=r"c of shape \(2,\) comes"):
        write_streamed([("c", torch.ones(2))], plan, tmp_path)
    with pytest.raises(ValueError, match=r"a of shape \(3,\) comes"):
        write_streamed([("a", torch.ones(3))], plan, tmp_path)
    with pytest.raises(ValueError, match="1 weights that were planned did not come, such as b"):
        write_streamed([("a", torch.ones(2))], plan, tmp_path)


def test_a_full_disk_is_told_after_the_last_tensor_has_come(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other processes are in the middle of putting tensors together, and would wait for ever."""
    came: list[str] = []

    def weights() -> Iterator[tuple[str, Tensor]]:
        for name in ("a", "b", "c"):
            came.append(name)
            yield name, torch.ones(2)

    def refuse(tensor: Tensor, dtype: torch.dtype) -> memoryview:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(streamed, "_bytes_of", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_streamed(weights(), {name: Planned((2,), torch.float32) for name in ("a", "b", "c")}, tmp_path)
    assert came == ["a", "b", "c"]
