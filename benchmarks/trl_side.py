"""TRL's side: its own trainers, the same rows in the same order, gradient checkpointing off (its default is on)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from benchmarks.material import MAX_LENGTH, SAMPLES, Material
from benchmarks.pace import Pace, Task
from tulu.data.mixing import order

SEED = 1
"""Of the order of rows: the default of our stages."""


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
    found = Material(task.material).rows(name)
    return Dataset.from_list([found[index] for index in order(len(found), SEED, 0)])


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

    found: Sequence[Mapping[str, Any]]
    next = 0

    def _generate_and_score_completions(self, inputs: Sequence[Any]) -> dict[str, Any]:
        chosen = self.found[self.next : self.next + len(inputs) // SAMPLES]
        self.next += len(chosen)
        prompts = [torch.tensor(row["prompt"]) for row in chosen for _ in row["completions"]]
        completions = [torch.tensor(tokens) for row in chosen for tokens in row["completions"]]

        def padded(sequences: list[torch.Tensor], side: str) -> tuple[torch.Tensor, torch.Tensor]:
            ones = [torch.ones_like(tokens) for tokens in sequences]
            return pad(sequences, padding_value=self._tokenizer.pad_token_id, padding_side=side), pad(
                ones, padding_value=0, padding_side=side
            )

        prompt_ids, prompt_mask = padded(prompts, "left")
        completion_ids, completion_mask = padded(completions, "right")
        return {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": completion_ids,
            "completion_mask": completion_mask,
            "advantages": torch.tensor([advantage for row in chosen for advantage in row["advantages"]]),
            "num_items_in_batch": completion_mask.sum(),
        }


def no_reward(**columns: Any) -> list[float | None]:
    """A function that TRL asks for and never calls here."""
    return [None] * len(columns["prompts"])


def train_grpo(task: Task, pace: Pace) -> None:
    """The learner alone: rollouts come from the file."""
    found = Material(task.material).rows("rollouts")
    config = GRPOConfig(
        **settings(task, task.batch * SAMPLES), num_generations=SAMPLES, max_completion_length=MAX_LENGTH, shuffle_dataset=False
    )
    trainer = FixedRollouts(
        str(Material(task.material).model),
        reward_funcs=no_reward,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": str(index)} for index in range(len(found))]),
    )
    trainer.found = [found[index] for index in order(len(found), SEED, 0)]
    lengths = [sum(len(row["prompt"]) + len(tokens) for tokens in row["completions"]) for row in trainer.found]
    start(trainer, [sum(lengths[first : first + task.batch]) for first in range(0, len(lengths), task.batch)], pace)


STAGES: dict[str, Callable[[Task, Pace], None]] = {"sft": train_sft, "dpo": train_dpo, "rm": train_rm, "grpo": train_grpo}


def train(task: Task, pace: Pace) -> None:
    """Train one stage, a turn at a time."""
    STAGES[task.stage](task, pace)
