"""Parity with TRL's trainers: the same weights and rows give the same loss, and the same weights after one optimizer step."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.samples import make_stage
from tulu.config.schema import Dpo, Rm, Sft, Source, TrainStage
from tulu.data.datasets import load_groups
from tulu.losses import Loss, sft_loss
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.reward_models.model import RewardModel
from tulu.reward_models.training import count_pairs as count_ranked_pairs
from tulu.reward_models.training import pack_ranked, ranking_loss
from tulu.stages.dpo import count_pairs, dpo, pack_pairs, with_reference
from tulu.train.fit import pack_whole
from tulu.train.optimizer import Learner, Trainable
from tulu.train.reference import reference_logps
from tulu.train.step import Normaliser, count_tokens, step

QUESTIONS = ["What is 2 + 2?", "Name a colour.", "Hi", "Say something long. " * 4, "Why?", "Spell cat", "Ünïcode?", "End"]
GOOD = ["4", "Blue, like the sky on a clear day.", "Hello!", "No.", "Because it is so. " * 5, "c-a-t", "Jä, ünïcode 🙂", "."]
BAD = ["5, I think", "Seven", "Go away " * 3, "Something long. " * 6, "Why not", "dog", "No", "The end, as I said"]

# A larger epsilon keeps Adam's first step a smooth function of the gradient, which with 1e-8 is the sign of noise where it is 0.
ADAM = {"learning_rate": 1e-3, "adam_epsilon": 1e-4}
ONE_STEP: Mapping[str, Any] = {
    **ADAM,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "max_steps": 1,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
    "optim": "adamw_torch",
    "max_length": None,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "seed": 1,
}


def say(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


ANSWERED = [{"prompt": say("user", q), "completion": say("assistant", a)} for q, a in zip(QUESTIONS, GOOD, strict=True)]
COMPARED = [
    {"prompt": say("user", q), "chosen": say("assistant", good), "rejected": say("assistant", bad)}
    for q, good, bad in zip(QUESTIONS, GOOD, BAD, strict=True)
]


@pytest.fixture
def source(tmp_path: Path) -> Callable[[Sequence[Mapping[str, Any]]], list[Source]]:
    """source(rows) -> a mix that holds them."""

    def write(rows: Sequence[Mapping[str, Any]]) -> list[Source]:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [Source(name=str(file), fraction=1.0)]

    return write


def ours_after_a_step(
    model: Trainable,
    batches: Sequence[Any],
    stage: TrainStage,
    objective: Callable[[Any], Loss],
    normaliser: Normaliser[Any],
) -> tuple[float, dict[str, Tensor]]:
    """(loss, weights after one step), through packed rows that split the batch unevenly."""
    learner = Learner(model, stage, Parallel(stage))
    assert len({batch.n_completions for batch in batches}) > 1
    metrics = step(learner, batches, objective, normaliser)
    return metrics["loss"], weights(model.module.get_submodule("model"))


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same(
    start: Mapping[str, Tensor], loss: float, after: Mapping[str, Tensor], trl_loss: float, trl_after: Mapping[str, Tensor]
) -> None:
    assert loss == pytest.approx(trl_loss, rel=0, abs=1e-5)
    assert after.keys() == trl_after.keys()
    assert max(float((after[name] - start[name]).abs().max()) for name in after) > 5e-4, "nothing was trained"
    for name, found in after.items():
        assert float((found - trl_after[name]).abs().max()) < 1e-5, name


def test_sft(tiny_model: Callable[..., Path], tmp_path: Path, source: Callable[..., list[Source]]) -> None:
    from trl import SFTConfig, SFTTrainer

    folder = tiny_model("olmo2")
    trainer: Any = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        args=SFTConfig(output_dir=str(tmp_path / "trl"), **ONE_STEP),
        train_dataset=Dataset.from_list(ANSWERED),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    start = weights(trainer.model)
    policy = Policy.load(folder)
    groups = list(load_groups("sft", source(ANSWERED), policy.tokenizer, 512))
    theirs = sorted(row["input_ids"] for row in trainer.train_dataset)
    assert sorted([*group.prompt, *group.completions[0].tokens] for group in groups) == theirs

    trl_loss = trainer.train().training_loss
    stage = make_stage(Sft, **ADAM, row_tokens=200, micro_batch=3)
    loss, after = ours_after_a_step(
        policy, pack_whole(groups, stage), stage, lambda batch: sft_loss(policy.logps(batch)), count_tokens
    )
    assert_same(start, loss, after, trl_loss, weights(trainer.model))


@pytest.mark.parametrize(("loss", "loss_type", "beta"), [("dpo", "sigmoid", 0.1), ("dpo_norm", "sigmoid_norm", 5.0)])
def test_dpo(
    loss: str, loss_type: str, beta: float, tiny_model: Callable[..., Path], tmp_path: Path, source: Callable[..., list[Source]]
) -> None:
    from trl import DPOConfig, DPOTrainer

    # A reference of its own: from the policy itself the loss would be log 2 whatever is computed.
    folder, reference = tiny_model("olmo2"), tiny_model("olmo2", seed=1)
    trainer: Any = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        ref_model=AutoModelForCausalLM.from_pretrained(reference),
        args=DPOConfig(output_dir=str(tmp_path / "trl"), loss_type=[loss_type], beta=beta, **ONE_STEP),
        train_dataset=Dataset.from_list(COMPARED),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    start = weights(trainer.model)
    policy = Policy.load(folder)
    groups = list(load_groups("pairs", source(COMPARED), policy.tokenizer, 512))
    for side in (0, 1):
        assert sorted([*group.prompt, *group.completions[side].tokens] for group in groups) == sorted(
            row["prompt_ids"] + row[("chosen_ids", "rejected_ids")[side]] for row in trainer.train_dataset
        )

    trl_loss = trainer.train().training_loss
    stage = make_stage(Dpo, **ADAM, row_tokens=400, micro_batch=3, loss=loss, beta=beta)
    frozen = Policy.load(reference, trainable=False)
    reference_values = reference_logps(groups, frozen, stage, Parallel(stage), tmp_path / "reference")
    batches = pack_pairs([with_reference(*pair) for pair in zip(groups, reference_values, strict=True)], stage)
    found, after = ours_after_a_step(policy, batches, stage, lambda batch: dpo(policy, batch, stage), count_pairs)
    assert abs(found - 0.693147) > 0.01
    assert_same(start, found, after, trl_loss, weights(trainer.model))


@pytest.mark.parametrize("centre", [0.0, 0.01])
def test_reward_model(
    centre: float, tiny_model: Callable[..., Path], tmp_path: Path, source: Callable[..., list[Source]]
) -> None:
    from trl import RewardConfig, RewardTrainer

    folder = tmp_path / "start"
    RewardModel.load(tiny_model("olmo2"), new_head=3).save(folder)
    trainer: Any = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(folder),
        args=RewardConfig(output_dir=str(tmp_path / "trl"), center_rewards_coefficient=centre or None, **ONE_STEP),
        train_dataset=Dataset.from_list(COMPARED),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    start = weights(trainer.model)
    reward_model = RewardModel.load(folder, trainable=True)
    groups = list(load_groups("pairs", source(COMPARED), reward_model.tokenizer, 512))
    for side in (0, 1):
        assert sorted([*group.prompt, *group.completions[side].tokens] for group in groups) == sorted(
            row[("chosen_ids", "rejected_ids")[side]] for row in trainer.train_dataset
        )

    trl_loss = trainer.train().training_loss
    stage = make_stage(Rm, **ADAM, row_tokens=400, micro_batch=3, centre=centre)
    found, after = ours_after_a_step(
        reward_model,
        pack_ranked(groups, stage),
        stage,
        lambda batch: ranking_loss(reward_model, batch, stage),
        count_ranked_pairs,
    )
    assert_same(start, found, after, trl_loss, weights(trainer.model))
