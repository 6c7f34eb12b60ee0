"""What the speed is compared with in the same run: a bare transformers loop with SDPA, and TRL's trainer where it is installed.

Both train the same sequences, padded to the longest of a forward pass. With the optimizer they hold float32 weights under
autocast to bf16, which is how a transformers user trains; without it bf16 weights whose gradients are dropped, like our side.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_cases import Figures, Unsuitable
from benchmarks.gpu_device import figures, memory_of, now, reset_memory
from benchmarks.gpu_rows import PROMPT_SHARE, Rows
from benchmarks.gpu_shapes import Shape, flops, new_model, tokenizer
from benchmarks.gpu_speed import Speed, drop_gradients, settle

IGNORED = -100
"""The label of a token that is not trained."""


def per_forward(speed: Speed) -> int:
    """Sequences of one forward pass: about 8,192 tokens of full ones, four of ragged ones."""
    longest = max(speed.lengths)
    return min(4, len(speed.lengths), 4 if min(speed.lengths) < longest else max(1, 8192 // longest))


def padded(rows: Rows, lengths: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """A batch as transformers takes it; the mask is left out where nothing is padded."""
    longest = max(lengths)
    tokens = torch.tensor([[*rows.tokens(length), *[0] * (longest - length)] for length in lengths], device=device)
    places = torch.arange(longest, device=device)[None]
    ends = torch.tensor(lengths, device=device)[:, None]
    trained = (places >= (PROMPT_SHARE * ends).long()) & (places < ends)
    batch = {"input_ids": tokens, "labels": tokens.where(trained, IGNORED)}
    return batch if min(lengths) == longest else {**batch, "attention_mask": (places < ends).long()}


def work_of(shape: Shape, lengths: Sequence[int]) -> float:
    """FLOPs of the sequences themselves, padding left out; every position is projected onto the vocabulary."""
    tokens = float(sum(lengths))
    return flops(shape, tokens, sum(length**2 / 2 for length in lengths), tokens, shape.vocabulary)


def plain(speed: Speed, device: torch.device) -> Figures:
    """transformers' own model, loss and AdamW in a loop as short as can be."""
    rows, size = Rows(speed.shape.vocabulary), per_forward(speed)
    checkpointing = needs_checkpointing(speed, size * max(speed.lengths), device)
    reset_memory(device)
    model = new_model(speed.shape, device, torch.float32 if speed.optimizer else torch.bfloat16, attn_implementation="sdpa")
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True) if speed.optimizer else None
    if optimizer is None:
        drop_gradients(model)
    parts = [speed.lengths[first : first + size] for first in range(0, len(speed.lengths), size)]
    batches = [padded(rows, part, device) for part in parts]
    began = 0.0
    for index in range(speed.warmup + speed.steps):
        if index == speed.warmup:
            began = now(device)
        for batch in batches:
            with autocast(device, speed.optimizer):
                loss = model(**batch, use_cache=False).loss / len(batches)
            loss.backward()
        if optimizer is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    seconds = (now(device) - began) / speed.steps
    useful, computed = sum(speed.lengths), sum(batch["input_ids"].numel() for batch in batches)
    settings = {"gradient_checkpointing": checkpointing, "per_forward": size, "optimizer": speed.optimizer}
    return {**figures(useful, computed, work_of(speed.shape, speed.lengths), seconds, device), "settings": settings}


def needs_checkpointing(speed: Speed, tokens: int, device: torch.device) -> bool:
    """As `settle` for a forward pass of so many tokens, whose logits all exist at once, in bf16, in float32 and as a gradient."""
    memory = memory_of(device)
    return settle(replace(speed, row_tokens=tokens), None if memory is None else memory - 10.0 * tokens * speed.shape.vocabulary)


def autocast(device: torch.device, wanted: bool) -> AbstractContextManager[Any]:
    """bf16 arithmetic over float32 weights."""
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


def trl(speed: Speed, device: torch.device, scratch: Path) -> Figures:
    """TRL's SFTTrainer on the same lengths. Raises Unsuitable where TRL is not installed."""
    if find_spec("trl") is None:
        raise Unsuitable("trl is not installed")
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    reset_memory(device)
    size = per_forward(speed)
    parts = len(speed.lengths) // size
    times: list[float] = []

    class Clock(TrainerCallback):
        """Keeps the time at which every step ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(now(device) if len(times) + 1 in (speed.warmup, speed.warmup + speed.steps) else time.perf_counter())

    config = SFTConfig(
        output_dir=str(scratch / "trl"),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=parts,
        max_steps=speed.warmup + speed.steps,
        max_length=None,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        bf16=True,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=False,
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    rows, lengths = Rows(speed.shape.vocabulary), speed.lengths[: parts * size]
    examples = []
    for length in lengths * (speed.warmup + speed.steps):
        prompt = int(PROMPT_SHARE * length)
        examples.append({"input_ids": rows.tokens(length), "completion_mask": [0] * prompt + [1] * (length - prompt)})
    trainer = SFTTrainer(
        model=new_model(speed.shape, device, torch.float32, attn_implementation="sdpa"),
        args=config,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer(),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    seconds = (times[-1] - times[speed.warmup - 1]) / speed.steps
    useful = sum(lengths)
    settings = {"gradient_checkpointing": False, "per_forward": size, "optimizer": True}
    # Full sequences alone are given to TRL, so nothing is padded.
    return {**figures(useful, useful, work_of(speed.shape, lengths), seconds, device), "settings": settings}
