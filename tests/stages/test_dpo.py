"""The DPO stage: its loss over packed pairs against plain log-probs, and a run with the reference computed once."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.samples import make_group, make_stage, plain_logps
from tulu.config.job import Job
from tulu.config.schema import Dpo, Recipe
from tulu.model.batch import Batch
from tulu.model.policy import Policy
from tulu.stages import dpo
from tulu.types import Group

PAIRS = [dpo.with_reference(make_group(seed, 5, [3 + seed, 9 - seed]), [-20.0 - seed, -21.0 + seed]) for seed in range(4)]


def by_hand(loss: str, model: Any, pair: dpo.ReferencedPair, beta: float) -> float:
    """The recipe's loss of one pair, from the definition."""
    rewards = []
    for completion, reference in zip(pair.completions, pair.reference_logps, strict=True):
        total = plain_logps(model, [Group(pair.prompt, (completion,))]).sum().item()
        length = 1 if loss == "dpo" else completion.n_trained
        rewards.append((total - (0.0 if loss == "simpo" else reference)) / length)
    margin = rewards[0] - rewards[1] - (0.3 if loss == "simpo" else 0.0)
    return math.log1p(math.exp(-beta * margin))


@pytest.mark.parametrize("loss", ["dpo", "dpo_norm", "simpo"])
@torch.no_grad()
def test_the_loss_of_packed_pairs_is_that_of_pairs_by_hand(loss: str, tiny_model: Callable[..., Path]) -> None:
    policy = Policy.load(tiny_model("llama"))
    plain = AutoModelForCausalLM.from_pretrained(tiny_model("llama"))
    stage = make_stage(Dpo, loss=loss, beta=0.5, micro_batch=4)
    [batch] = dpo.pack_pairs(PAIRS, stage)
    actual, metrics = (dpo.simpo if loss == "simpo" else dpo.dpo)(policy, batch, stage)
    expected = [by_hand(loss, plain, pair, 0.5) for pair in PAIRS]
    assert actual.item() == pytest.approx(sum(expected), abs=1e-4)
    assert metrics["accuracy"][1].item() == 4


def job(folder: Path, model: Path, name: str = "t", **fields: Any) -> Job:
    file = folder / "pairs.jsonl"
    rows = [{"prompt": f"q{at}", "chosen": "yes " * (1 + at % 3), "rejected": "no " * (1 + at % 4)} for at in range(10)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = {
        **{"data": str(file), "max_length": 128, "batch": 5, "micro_batch": 5, "epochs": 2, "learning_rate": 1e-3},
        **{"precision": "fp32", "schedule": "constant"},
        **fields,
    }
    recipe = Recipe.model_validate({"name": name, "model": str(model), "template": "tulu", "dpo": section})
    return Job(recipe, "dpo", folder / "runs" / name / "dpo", str(model))


def metrics_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder.parent / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "fields", [{"loss": "dpo", "beta": 0.1}, {"loss": "dpo_norm", "beta": 5.0}, {"loss": "dpo", "lora": {"rank": 4, "alpha": 64}}]
)
def test_a_run_begins_at_log_2_and_learns(fields: dict[str, Any], tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = dpo.run(job(tmp_path, tiny_model("olmo2"), **fields))
    found = metrics_of(folder)
    assert len(found) == 4
    # The policy is its own reference at first: losses.md §13.6.
    assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert found[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert found[-1]["loss"] < found[0]["loss"]
    assert found[-1]["margin"] > 0


def test_a_second_run_computes_no_reference(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run with another order, batch size and loss: the cache is keyed by weights and tokens alone."""
    frozen = 0
    logps = Policy.logps

    def counted(policy: Policy, batch: Batch, *rest: Any) -> Tensor:
        nonlocal frozen
        frozen += not torch.is_grad_enabled()
        found: Tensor = logps(policy, batch, *rest)
        return found

    monkeypatch.setattr(Policy, "logps", counted)
    dpo.run(job(tmp_path, tiny_model("olmo2"), "first"))
    assert frozen > 0
    computed = frozen
    dpo.run(job(tmp_path, tiny_model("olmo2"), "second", seed=7, batch=2, micro_batch=2, loss="dpo", beta=0.1))
    assert frozen == computed
    dpo.run(job(tmp_path, tiny_model("olmo2", seed=1), "other weights"[:5]))
    assert frozen > computed


def test_simpo_has_no_reference(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    folder = dpo.run(job(tmp_path, tiny_model("olmo2"), loss="simpo", beta=2.0))
    assert not (tmp_path / "runs" / ".cache" / "reference").exists()
    assert metrics_of(folder)[-1]["loss"] < metrics_of(folder)[0]["loss"]
