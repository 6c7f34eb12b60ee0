"""The reward-model stage: pairs of ranked lists, the loss by hand, margins, held-out accuracy, a run."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.samples import make_group, make_stage
from tulu.config.job import Job
from tulu.config.schema import Recipe, Rm
from tulu.model.batch import pack_row
from tulu.model.parallel import Parallel
from tulu.reward_models import training
from tulu.reward_models.model import RewardModel
from tulu.reward_models.training import accuracy, count_pairs, pack_ranked, ranked_pairs, ranking_loss
from tulu.train.held_out import split
from tulu.train.optimizer import Learner


def test_every_pair_of_every_prompt() -> None:
    batch = pack_row([make_group(0, 4, [3, 5]), make_group(1, 4, [2, 3, 4]), make_group(2, 4, [6])])
    assert ranked_pairs(batch) == ([0, 2, 2, 3], [1, 3, 4, 4])
    assert count_pairs(batch) == 4.0


@pytest.mark.parametrize("lengths", [[3], [3, 4], [3, 4, 5], [2, 3, 4, 5]])
def test_a_list_of_k_has_k_over_two_pairs(lengths: list[int]) -> None:
    batch = pack_row([make_group(seed, 0 if seed == 1 else 3, lengths) for seed in (0, 2, 3)])
    assert count_pairs(batch) == 3 * math.comb(len(lengths), 2)


def test_answers_without_a_shared_prompt_are_still_pairs() -> None:
    """Chosen and rejected may differ from their first token on; the prompt is then empty."""
    batch = pack_row([make_group(0, 0, [3, 5]), make_group(1, 0, [2, 4]), make_group(2, 3, [2, 4])])
    assert ranked_pairs(batch) == ([0, 2, 4], [1, 3, 5])


@torch.no_grad()
def test_the_loss_of_ranked_lists_by_hand(tiny_reward_model: Callable[..., Path]) -> None:
    model = RewardModel.load(tiny_reward_model("olmo2"))
    plain = AutoModelForSequenceClassification.from_pretrained(tiny_reward_model("olmo2"))
    groups = [replace(make_group(seed, 5, [4, 9, 6][: 2 + seed % 2]), margin=0.3 * seed) for seed in range(4)]
    expected, right = [], 0
    for group in groups:
        rewards = [plain(input_ids=torch.tensor([[*group.prompt, *each.tokens]])).logits.item() for each in group.completions]
        for better, worse in combinations(rewards, 2):
            expected.append(math.log1p(math.exp(worse - better + group.margin)) + 0.01 * (better + worse) ** 2)
            right += better > worse
    stage = make_stage(Rm, centre=0.01, micro_batch=4)
    [batch] = pack_ranked(groups, stage)
    loss, metrics = ranking_loss(model, batch, stage)
    assert loss.item() == pytest.approx(sum(expected), abs=1e-4)
    assert (metrics["accuracy"][0].item(), metrics["accuracy"][1].item()) == (right, len(expected))


@pytest.mark.parametrize("row_tokens", [10, 25, 1000])
def test_a_list_is_never_split_over_rows(row_tokens: int) -> None:
    groups = [make_group(seed, 5, [4, 9, 6]) for seed in range(5)]
    assert sum(count_pairs(batch) for batch in pack_ranked(groups, make_stage(Rm, row_tokens=row_tokens))) == 15.0


def test_held_out_pairs_are_a_seeded_share_and_none_is_trained() -> None:
    held_out, training = split(50, make_stage(Rm, held_out=0.2))
    assert len(held_out) == 10
    assert sorted([*held_out, *training]) == list(range(50))
    assert held_out == sorted(held_out)
    assert training.tolist() == sorted(training)
    assert split(50, make_stage(Rm, held_out=0.2))[0] == held_out
    assert split(50, make_stage(Rm, held_out=0.2, seed=9))[0] != held_out
    nothing, everything = split(50, make_stage(Rm))
    assert (nothing, everything.tolist()) == ([], list(range(50)))


def test_accuracy_is_that_of_scores_one_row_at_a_time(tiny_reward_model: Callable[..., Path]) -> None:
    model = RewardModel.load(tiny_reward_model("olmo2"), trainable=True)
    stage = make_stage(Rm, row_tokens=40)
    groups = [make_group(seed, 5, [4, 6]) for seed in range(30)]
    with torch.no_grad():
        alone = [model.score(pack_row([group])).tolist() for group in groups]
    found = accuracy(Learner(model, stage, Parallel(stage)), groups, range(30), stage)
    assert found == pytest.approx(sum(better > worse for better, worse in alone) / 30)
    assert 0 < found < 1
    assert model.module.training


def test_a_run_learns_and_reports_held_out_accuracy(
    tiny_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": f"q{at}", "chosen": f"yes {at}", "rejected": f"no {at}"} for at in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {
        **{"data": str(file), "max_length": 128, "batch": 8, "micro_batch": 8, "steps": 25, "learning_rate": 1e-3},
        **{"precision": "fp32", "held_out": 0.2},
    }
    recipe = Recipe.model_validate({"name": "t", "model": str(tiny_model("olmo2")), "template": "tulu", "rm": section})
    job = Job(recipe, "rm", tmp_path / "runs" / "t" / "rm", str(tiny_model("olmo2")))
    folder = training.run(job)
    manifest = json.loads((folder.parent / "manifest.json").read_text())
    assert (manifest["rows"], manifest["held_out_pairs"]) == (32, 8)
    assert manifest["held_out_accuracy"] >= 0.9
    assert f"held-out: {100 * manifest['held_out_accuracy']:.1f} % of 8 pairs ranked right" in capsys.readouterr().out
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.num_labels == 1
    metrics = [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["loss"] < 0.5 * metrics[0]["loss"]
