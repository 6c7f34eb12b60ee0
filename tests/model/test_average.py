"""The mean of checkpoints on disk: paper numbers, an oracle over whole tensors, and what has no mean."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tulu.errors import RecipeError
from tulu.model import average
from tulu.model.average import differing_weights, write_average
from tulu.model.stored import open_checkpoint


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("one", "two", "three", "mean")]
    for folder in made:
        folder.mkdir()
    return made


def merged(folders: list[Path], shares: list[float], *states: dict[str, Tensor]) -> dict[str, Tensor]:
    sources = folders[: len(states)]
    for folder, state in zip(sources, states, strict=True):
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with ExitStack() as stack:
        checkpoints = [stack.enter_context(open_checkpoint(folder)) for folder in sources]
        write_average(checkpoints, shares, ["one", "two", "three"][: len(states)], folders[-1])
    return load_file(folders[-1] / "model.safetensors")


def test_the_mean_on_paper(folders: list[Path]) -> None:
    """3/4 · 1 + 1/4 · 5 = 2, and 3/4 · (-2) + 1/4 · 6 = 0."""
    mean = merged(folders, [0.75, 0.25], {"w": torch.tensor([[1.0], [-2.0]])}, {"w": torch.tensor([[5.0], [6.0]])})
    assert mean["w"].tolist() == [[2.0], [0.0]]


def test_sums_are_float32_and_rounded_once(folders: list[Path]) -> None:
    """In bfloat16, 256 + 1 is 256: a mean that is added up there loses the small models. (256 + 3 · 2) / 4 is 65.5."""
    state = {"w": torch.tensor([256.0]).bfloat16()}
    small = {"w": torch.tensor([1.0]).bfloat16()}
    smaller = {"w": torch.tensor([3.0]).bfloat16()}
    mean = merged(folders, [0.25, 0.25, 0.5], state, small, smaller)["w"]
    assert mean.dtype == torch.bfloat16
    # 64 + 0.25 + 1.5 = 65.75, of which bfloat16 (steps of 0.5 here) makes 66; 64.25 would have been rounded to 64 on the way.
    assert mean.tolist() == [66.0]


def test_any_pieces_make_the_same_mean(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(7, 5, generator=generator), "n": torch.randn((), generator=generator)} for _ in range(3)]
    shares = [0.5, 0.3, 0.2]
    whole = merged(folders, shares, *states)
    monkeypatch.setattr(average, "PIECE", 10)
    assert all(torch.equal(whole[name], merged(folders, shares, *states)[name]) for name in whole)
    oracle = sum(share * state["w"].double() for share, state in zip(shares, states, strict=True))
    assert torch.allclose(whole["w"].double(), torch.as_tensor(oracle), atol=1e-6)


def test_a_model_merged_with_itself_is_itself(folders: list[Path]) -> None:
    """A third of a number three times is not the number, in float32."""
    state = {"w": torch.randn(100, generator=torch.Generator().manual_seed(1)), "flags": torch.tensor([True, False])}
    mean = merged(folders, [1 / 3, 1 / 3, 1 / 3], state, state, state)
    assert all(torch.equal(mean[name], state[name]) for name in state)


def test_what_has_no_mean(folders: list[Path]) -> None:
    with pytest.raises(RecipeError, match="one: n holds int64, which has no mean"):
        merged(folders, [0.5, 0.5], {"n": torch.tensor([1, 2])}, {"n": torch.tensor([1, 3])})
    with pytest.raises(RecipeError, match="two: w is not finite"):
        merged(folders, [0.5, 0.5], {"w": torch.ones(2)}, {"w": torch.tensor([1.0, torch.nan])})


def test_differences_are_told_by_weight(folders: list[Path]) -> None:
    save_file({"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}, folders[0] / "model.safetensors")
    save_file({"a": torch.ones(3), "b": torch.ones(2).half(), "d": torch.ones(2)}, folders[1] / "model.safetensors")
    with open_checkpoint(folders[0]) as first, open_checkpoint(folders[1]) as other:
        assert differing_weights(first, first) == []
        assert differing_weights(first, other) == [
            "c: only in the first",
            "d: not in the first",
            "a: shape [2] and [3]",
            "b: float32 and float16",
        ]
