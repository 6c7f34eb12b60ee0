"""The reward model: scores are transformers' own, one row at a time; heads that are new, trained or missing; saving."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.samples import gradients, largest_difference, make_group, stay_in_float64
from tulu.config.schema import Lora
from tulu.errors import RecipeError
from tulu.model.batch import pack, pack_row
from tulu.reward_models.model import RewardModel
from tulu.types import Completion, Group

GROUPS = [make_group(0, 9, [7, 12]), make_group(1, 14, [5, 6]), make_group(2, 3, [8, 1, 20]), make_group(3, 0, [17, 9])]
FAMILIES = ["olmo2", "olmo3", "qwen3", "llama", "olmoe"]
"""Families with a classification head, OLMoE's our own; Olmo 3's window of 6 is smaller than the sequences."""


def plain_scores(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Tensor, torch.nn.Module]:
    """The oracle: (C,) scores, each from a batch of one without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype)
    rows = [[*group.prompt, *completion.tokens] for group in GROUPS for completion in group.completions]
    return torch.stack([model(input_ids=torch.tensor([row])).logits[0, 0] for row in rows]), model


def scores(model: RewardModel, groups: list[Group], row_tokens: int) -> Tensor:
    """(C,) in the order of the completions."""
    scores: dict[tuple[int, int], Tensor] = {}
    for batch in pack(groups, row_tokens):
        scores |= dict(zip(batch.index_C, model.score(batch), strict=True))
    return torch.stack([scores[place] for place in sorted(scores)])


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_transformers_one_row_at_a_time(family: str, tiny_reward_model: Callable[..., Path]) -> None:
    folder = tiny_reward_model(family)
    expected, _ = plain_scores(folder)
    model = RewardModel.load(folder)
    assert model.module.trunk.shares_prefix
    for row_tokens in (30, 60, 1000):
        found = scores(model, GROUPS, row_tokens)
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() < 1e-5
    assert expected.std() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_transformers(
    family: str, tiny_reward_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stay_in_float64(monkeypatch)
    folder = tiny_reward_model(family)
    expected, plain = plain_scores(folder, torch.float64)
    model = RewardModel.load(folder, trainable=True)
    model.module.double()
    weight = torch.linspace(-1, 2, len(expected), dtype=torch.float64)
    (expected * weight).sum().backward()
    (scores(model, GROUPS, 60) * weight).sum().backward()
    assert largest_difference(gradients(model.model), gradients(plain)) < 1e-10


@torch.no_grad()
def test_no_answer_sees_its_neighbours(tiny_reward_model: Callable[..., Path]) -> None:
    model = RewardModel.load(tiny_reward_model("qwen3"))
    before = model.score(pack_row(GROUPS))
    other = make_group(77, 9, [7, 12])
    after = model.score(pack_row([other, *GROUPS[1:]]))
    assert torch.equal(after[2:], before[2:])
    assert not torch.equal(after[:2], before[:2])


def test_a_new_head_is_open_instructs(tiny_model: Callable[..., Path]) -> None:
    def head(seed: int) -> Tensor:
        return RewardModel.load(tiny_model("olmo2"), new_head=seed).module.get_parameter("score.weight").detach()

    assert head(1).shape == (1, 32)
    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    many = torch.cat([head(seed) for seed in range(12)])
    assert many.std().item() == pytest.approx(1 / math.sqrt(33), rel=0.1)
    assert abs(many.mean().item()) < 0.03


def test_a_policy_is_no_reward_model(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match=r"score\.weight is missing"):
        RewardModel.load(tiny_model("olmo2"))


def test_a_saved_model_loads_everywhere(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    ours = RewardModel.load(tiny_model("olmo2"), new_head=5)
    ours.save(tmp_path / "saved")
    plain, loading = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(loading.values())
    assert plain.config.num_labels == 1
    assert plain.config.pad_token_id == ours.tokenizer.pad_token_id
    again = RewardModel.load(tmp_path / "saved")
    assert again.digest() == ours.digest()
    assert torch.equal(again.score(pack_row(GROUPS)), ours.score(pack_row(GROUPS)))


@torch.no_grad()
@pytest.mark.parametrize("pad", ["eos", "none"])
def test_a_pad_that_ends_turns_is_replaced_before_training(pad: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    """Else transformers would read the score one token before the one that was trained."""
    start = AutoModelForCausalLM.from_pretrained(tiny_model("olmo2"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model("olmo2"))
    tokenizer.pad_token = tokenizer.eos_token if pad == "eos" else None
    start.config.pad_token_id = tokenizer.pad_token_id
    start.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")

    ours = RewardModel.load(tmp_path / "start", new_head=5, trainable=True)
    ours.save(tmp_path / "saved")
    eos = tokenizer.eos_token_id
    groups = [Group([7, 8, 9], (Completion([10, 11, eos], [True] * 3), Completion([12, eos], [True] * 2)))]
    trained = ours.score(pack_row(groups))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.pad_token_id == plain.config.pad_token_id
    assert saved.pad_token_id != eos
    batch = saved.pad({"input_ids": [[7, 8, 9, 10, 11, eos], [7, 8, 9, 12, eos]]}, return_tensors="pt")
    assert (plain(**batch).logits[:, 0] - trained).abs().max() < 1e-5
    before, after = (model.get_input_embeddings().get_parameter("weight") for model in (start, plain))
    assert torch.equal(after[: len(before)], before)


def test_lora_trains_adapters_and_head_and_is_saved_merged(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    ours = RewardModel.load(tiny_model("qwen3"), new_head=1, lora=Lora(rank=4, alpha=8), trainable=True)
    trained = {name for name, parameter in ours.module.named_parameters() if parameter.requires_grad}
    assert any("lora_" in name for name in trained)
    assert all("lora_" in name or "score" in name for name in trained)
    for name, parameter in ours.module.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.02)
    ours.save(tmp_path / "saved")
    again = RewardModel.load(tmp_path / "saved")
    assert (again.score(pack_row(GROUPS)) - ours.score(pack_row(GROUPS))).abs().max() < 1e-5


def test_a_head_in_bfloat16_still_tells_close_answers_apart(tiny_reward_model: Callable[..., Path]) -> None:
    model = RewardModel.load(tiny_reward_model("olmo2"), precision="bf16")
    found = scores(model, GROUPS, 60)
    assert found.dtype == torch.float32
    assert len(set(found.tolist())) == len(found)
    expected, _ = plain_scores(tiny_reward_model("olmo2"))
    assert (found - expected).abs().mean() < 0.2 * expected.abs().mean()
