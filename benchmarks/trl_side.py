"""TRL's side: its own trainers, the same rows in the same order, gradient checkpointing off (its default is on)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from benchmarks.material import MAX_LENGTH, SAMPLES, Material
from benchmarks.pace import Pace, Task, Trainer
from tulu.data.mixing import order

SEED = 1
"""The seed of the order of rows, the default of our stages."""


class Paced(TrainerCallback):
    """Tells the pace of every step that is logged, which is every step."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if "loss" in kwargs["logs"]:
            self.pace.step(kwargs["logs"]["loss"])


def settings(task: Task, sequences: int) -> dict[str, Any]:
    """The arguments that every trainer shares; `sequences` are those of one optimizer step, as TRL counts them."""
    return {
        "output_dir": str(task.scratch),
        "per_device_train_batch_size": task.micro_batch,
        "gradient_accumulation_steps": max(1, sequences // task.micro_batch),
        "max_steps": 1_000_000,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def rows(task: Task, name: str) -> Dataset:
    """The rows in the order in which our side draws them."""
    written = Material(task.material).rows(name)
    return Dataset.from_list([written[index] for index in order(len(written), SEED, 0)])


def tokens_of(trainer: Any, columns: Sequence[Sequence[str]], batch: int) -> list[int]:
    """Tokens of every step's sequences; each sequence is the concatenation of some columns of the tokenised rows."""
    lengths = [sum(len(row[name]) for sequence in columns for name in sequence) for row in trainer.train_dataset]
    return [sum(lengths[first : first + batch]) for first in range(0, len(lengths), batch)]


def start(trainer: Any, tokens: Sequence[int], pace: Pace) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Paced(pace))
    pace.ready(tokens)
    trainer.train()


def train_sft(task: Task, pace: Pace) -> None:
    config = SFTConfig(**settings(task, task.batch), max_length=None, padding_free=task.padding_free)
    trainer = SFTTrainer(str(Material(task.material).model), config, train_dataset=rows(task, "sft"))
    start(trainer, tokens_of(trainer, [["input_ids"]], task.batch), pace)


def train_dpo(task: Task, pace: Pace) -> None:
    config = DPOConfig(**settings(task, task.batch), max_length=None, beta=0.1, precompute_ref_log_probs=True)
    trainer = DPOTrainer(str(Material(task.material).model), args=config, train_dataset=rows(task, "pairs"))
    start(trainer, tokens_of(trainer, [["prompt_ids", "chosen_ids"], ["prompt_ids", "rejected_ids"]], task.batch), pace)


def train_rm(task: Task, pace: Pace) -> None:
    config = RewardConfig(**settings(task, task.batch), max_length=None)
    trainer = RewardTrainer(str(Material(task.material).reward), args=config, train_dataset=rows(task, "pairs"))
    start(trainer, tokens_of(trainer, [["chosen_ids"], ["rejected_ids"]], task.batch), pace)


class FixedRollouts(GRPOTrainer):
    """GRPOTrainer whose generation hands over completions that are there already, padded as it pads its own."""

    groups: Sequence[Mapping[str, Any]]
    next = 0

    def _generate_and_score_completions(self, inputs: Sequence[Any]) -> dict[str, Any]:
        chosen = self.groups[self.next : self.next + len(inputs) // SAMPLES]
        self.next += len(chosen)
        prompts = [torch.tensor(row["prompt"]) for row in chosen for _ in row["completions"]]
        completions = [torch.tensor(tokens) for row in chosen for tokens in row["completions"]]
        padding = self._tokenizer.pad_token_id
        completion_mask = pad([torch.ones_like(tokens) for tokens in completions], padding_value=0, padding_side="right")
        return {
            "prompt_ids": pad(prompts, padding_value=padding, padding_side="left"),
            "prompt_mask": pad([torch.ones_like(tokens) for tokens in prompts], padding_value=0, padding_side="left"),
            "completion_ids": pad(completions, padding_value=padding, padding_side="right"),
            "completion_mask": completion_mask,
            "advantages": torch.tensor([advantage for row in chosen for advantage in row["advantages"]]),
            "num_items_in_batch": completion_mask.sum(),
        }


def no_reward(**columns: Any) -> list[float | None]:
    """A function that TRL asks for and never calls here."""
    return [None] * len(columns["prompts"])


def train_grpo(task: Task, pace: Pace) -> None:
    """The learner alone: rollouts come from the file."""
    groups = Material(task.material).rows("rollouts")
    config = GRPOConfig(
        **settings(task, task.batch * SAMPLES), num_generations=SAMPLES, max_completion_length=MAX_LENGTH, shuffle_dataset=False
    )
    trainer = FixedRollouts(
        str(Material(task.material).model),
        reward_funcs=no_reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": str(index)} for index in range(len(groups))]),
    )
    trainer.groups = [groups[index] for index in order(len(groups), SEED, 0)]
    lengths = [sum(len(row["prompt"]) + len(tokens) for tokens in row["completions"]) for row in trainer.groups]
    start(trainer, [sum(lengths[first : first + task.batch]) for first in range(0, len(lengths), task.batch)], pace)


STAGES: dict[str, Trainer] = {"sft": train_sft, "dpo": train_dpo, "rm": train_rm, "grpo": train_grpo}
"""Each trains one stage, a turn at a time."""
