"""Files of weights written piece by piece: the library reads them back, whole or in shards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tulu.model.stored import open_checkpoint
from tulu.model.weight_files import write_weights

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b.half": torch.tensor([1.5, -2.0, 3.25]).bfloat16(),
    "c.flags": torch.tensor([True, False]),
    "d.number": torch.tensor(7, dtype=torch.int64),
    "e.empty": torch.zeros(0, 4),
    "f.last": torch.full((5,), 0.1, dtype=torch.float64),
}
LAYOUT = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in TENSORS.items()}


def by_rows(name: str) -> Iterator[Tensor]:
    tensor = TENSORS[name]
    yield from tensor.split(1) if tensor.dim() and len(tensor) else [tensor]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_the_library_reads_the_file(tmp_path: Path) -> None:
    write_weights(tmp_path, LAYOUT, by_rows)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert same(load_file(tmp_path / "model.safetensors"), TENSORS)


def test_the_file_begins_as_the_librarys_own(tmp_path: Path) -> None:
    """The header is padded so that values are aligned, and names its format, without which transformers refuses a file."""
    write_weights(tmp_path, LAYOUT, by_rows)
    save_file(TENSORS, tmp_path / "library", metadata={"format": "pt"})
    own, library = (tmp_path / "model.safetensors").read_bytes(), (tmp_path / "library").read_bytes()
    header = [json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]) for content in (own, library)]
    assert header[0]["__metadata__"] == header[1]["__metadata__"] == {"format": "pt"}
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header[0].items() if name != "__metadata__"} == {
        name: (entry["dtype"], entry["shape"]) for name, entry in header[1].items() if name != "__metadata__"
    }
    assert int.from_bytes(own[:8], "little") % 8 == 0


def test_many_files_have_an_index(tmp_path: Path) -> None:
    # 48 bytes; 6 + 2 + 8 + 0 bytes, to which the last 40 would add more than 50.
    write_weights(tmp_path, LAYOUT, by_rows, shard_bytes=50)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert index["metadata"]["total_size"] == 48 + 6 + 2 + 8 + 40
    assert index["weight_map"] == dict(zip(TENSORS, [files[0], *[files[1]] * 4, files[2]], strict=True))
    assert same({name: tensor for file in files for name, tensor in load_file(tmp_path / file).items()}, TENSORS)
    with open_checkpoint(tmp_path) as stored:
        assert {name: entry.shape for name, entry in stored.items()} == {name: shape for name, (shape, _) in LAYOUT.items()}


@pytest.mark.parametrize("wrong", [torch.ones(2), torch.ones(3, 4).half()], ids=["fewer numbers", "another dtype"])
def test_pieces_that_are_not_what_was_announced(tmp_path: Path, wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"where .* announced"):
        write_weights(tmp_path, {"a.weight": LAYOUT["a.weight"]}, lambda _: [wrong])
