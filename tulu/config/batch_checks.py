"""Mistakes about the batch of a stage: what does not divide, and what would leave nothing to train on."""

from collections.abc import Iterator

from tulu.config.mistakes import Mistake
from tulu.config.training import full_rows
from tulu.config.values import Values


def micro_batch(batch: int, most: int, processes: int) -> int:
    """Sequences that one process takes side by side: `most`, or its share of the batch where that is smaller."""
    return max(1, min(most, batch // processes))


def batch_tokens(stage: Values) -> Iterator[Mistake]:
    tokens = stage.batch_tokens
    if tokens is None:
        return
    if tokens < stage.max_length:
        least = stage.max_length
        text = f"is less than max_length {least}, so a step could be without a row; use {least} or more"
        yield stage.mistake("batch_tokens", text)
    elif "batch" in stage.given and stage.batch != (rows := full_rows(tokens, stage.max_length)):
        text = f"counts sequences, and batch_tokens is set beside it; leave batch out, or set it to the {rows} that it becomes"
        yield stage.mistake("batch", text)
    if stage.loss != "token":
        text = f"loss {stage.loss} is defined by micro-batches of sequences; set loss: token, or batch in place of it"
        yield stage.mistake("batch_tokens", text)


def batch(stage: Values) -> Iterator[Mistake]:
    if stage.fields.get("batch_tokens") is not None:
        return
    most, processes, parts = stage.micro_batch, stage.processes, 1
    if "minibatches" in stage.declared:
        parts = stage.minibatches
        if stage.batch != stage.prompts * stage.samples or stage.prompts % parts:
            return  # This is the mistake of _rollouts.
    step = stage.batch // parts
    if step % processes:
        yield stage.mistake("batch", f"does not divide over {processes} processes; {_choices(stage.batch, parts * processes)}")
        return
    micro = micro_batch(step, most, processes)
    if (step // processes) % micro:
        share = step // processes
        cure = ", ".join(str(n) for n in range(micro, 0, -1) if share % n == 0)
        whose = f"{share} a process" if processes > 1 else f"{share} a minibatch" if parts > 1 else "it"
        yield stage.mistake(
            "batch",
            f"does not divide: {whose} is no multiple of micro_batch {micro}; "
            f"set {stage.name}.micro_batch to one of {cure}, or {_choices(stage.batch, parts * processes * micro)}",
        )


def _choices(batch: int, unit: int) -> str:
    below, above = batch // unit * unit, (batch // unit + 1) * unit
    return f"use a multiple of {unit} such as {above if below == 0 else f'{below} or {above}'}"


def micro_loss(stage: Values) -> Iterator[Mistake]:
    if stage.fields.get("batch_tokens") is None and stage.loss != "token" and stage.batch % stage.loss_micro_batch:
        text = f"batch {stage.batch} is no multiple of it, and loss {stage.loss} is defined by it; use a divisor of the batch"
        yield stage.mistake("loss_micro_batch", text)


def drop_equal(stage: Values) -> Iterator[Mistake]:
    if stage.drop_equal and (stage.samples == 1 or stage.advantage == "none"):
        text = "completions are not compared with their group, so every prompt would be left out; set false"
        yield stage.mistake("drop_equal", text)
