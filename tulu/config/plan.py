"""What a stage would need, worked out without a model and without a network: batch, memory and steps.

Memory is an estimate by the formula in its docstring.
"""

import math
from collections.abc import Mapping

from tulu.config.checks import micro_batch
from tulu.config.schema import Rlvr, TrainStage
from tulu.config.sizes import Size
from tulu.config.training import TokenBatched

GIB = 1024**3
USABLE = 0.92
"""The share of a card's memory that is planned with. The allocator loses some of it to gaps, and rows are not all alike."""
LONGEST_ROW = 65_536
"""Tokens of a row beyond which nothing is gained: the largest products of a layer still have fewer than 2³¹ numbers."""
ROW_UNIT = 128
"""Rows are as long as a multiple of this."""

SPREAD: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "zero1": ("masters", "moments"),
    "zero2": ("masters", "moments", "gradients"),
    "zero3": ("masters", "moments", "gradients", "weights"),
    "fsdp2": ("masters", "moments", "gradients", "weights"),
}
"""What each sharding spreads over the processes."""


def batch_equation(stage: TrainStage, processes: int) -> str:
    """The batch of one optimizer step as the product of processes, micro-batch and micro-batches taken one after the other."""
    if isinstance(stage, TokenBatched) and stage.batch_tokens is not None:
        return f"global batch {stage.batch_tokens:,} tokens, as many as {stage.batch} of max_length"
    minibatches = stage.minibatches if isinstance(stage, Rlvr) else 1
    batch = stage.batch // minibatches
    micro = micro_batch(batch, stage.micro_batch, processes)
    accumulation = max(1, batch // (processes * micro))
    counted = f"{processes} process" if processes == 1 else f"{processes} processes"
    text = f"global batch {batch} = {counted} × micro-batch {micro} × accumulation {accumulation}"
    return text if minibatches == 1 else f"{text}, {minibatches} such minibatches a step"


def memory(
    stage: TrainStage, size: Size, processes: int, value: Size | None = None, teacher: Size | None = None
) -> dict[str, float]:
    """Bytes on one process, by what they hold.

    fp32: weights, gradients and AdamW's two moments take 4, 4 and 8 bytes a trained parameter. bf16 and fp16: weights of 2
    bytes, and behind the trained ones float32 masters and gradients of 4 bytes each, moments of 8. Sharding: zero1 spreads
    masters and moments over the processes, zero2 also gradients, zero3 also weights; fsdp2 spreads all of it, and its shards
    of the weights are float32, the masters themselves. A frozen reference (RLVR with beta above 0) takes another set of
    weights, and so does a teacher; behind adapters the frozen weights are the reference themselves. Offloaded moments lie in the
    memory of the CPU and are left out. With LoRA about 2 % of the parameters are trained. PPO's value model has all of it and
    activations of its own; value model and teacher are taken to be as large as the policy where no size is given.
    Activations of a row: 8 hidden + 2 kv + 4 feed-forward values a token and layer (what a gated block keeps for its
    backward pass, attention scores excepted: neither SDPA nor varlen attention stores them); with gradient
    checkpointing one hidden vector a token and layer, and one layer in full; selective checkpointing also keeps attention's
    output and every second product (1 hidden, and 1 hidden + 1 kv + 1 feed-forward).
    """
    element = 4 if stage.precision == "fp32" else 2
    models = [size, value or size] if isinstance(stage, Rlvr) and stage.value is not None else [size]
    parameters = sum(model.parameters for model in models)
    trained = parameters * (0.02 if stage.lora else 1.0)
    spread = SPREAD[stage.sharding]
    over = {part: processes if part in spread else 1 for part in ("weights", "masters", "gradients", "moments")}
    # Shards of FSDP2 have the dtype of the masters.
    has_masters = element == 2 and not (stage.sharding == "fsdp2" and processes > 1)
    amounts = {"weights": (element if has_masters else 4) * parameters / over["weights"]}
    if has_masters:
        amounts["masters"] = 4 * trained / over["masters"]
    amounts["gradients"] = 4 * trained / over["gradients"]
    if not stage.offload_optimizer:
        amounts["moments"] = 8 * trained / over["moments"]
    if isinstance(stage, Rlvr) and stage.beta > 0 and not stage.lora:
        amounts["reference"] = element * size.parameters / over["weights"]
    if isinstance(stage, Rlvr) and stage.teacher is not None:
        amounts["teacher"] = element * (teacher or size).parameters / over["weights"]
    if size.layers:
        amounts["activations"] = float(element * stage.row_limit * sum(kept_a_token(stage, model) for model in models))
    return amounts


def kept_a_token(stage: TrainStage, size: Size) -> int:
    """Values that a model keeps of a token for its backward pass."""
    block = 8 * size.hidden + 2 * size.kv + 4 * size.feed_forward
    kept = {False: block, True: size.hidden, "selective": 3 * size.hidden + size.kv + size.feed_forward}
    return size.layers * kept[stage.gradient_checkpointing] + (block if stage.gradient_checkpointing else 0)


def longest_row(
    stage: TrainStage, size: Size, processes: int, room: float, value: Size | None = None, teacher: Size | None = None
) -> int:
    """Most tokens of a packed row that fit into `room` bytes of every process; 0 where not even the rest fits."""
    amounts = memory(stage, size, processes, value, teacher)
    a_token = amounts.pop("activations", 0.0) / stage.row_limit
    free = room - sum(amounts.values())
    if not a_token or free <= 0:
        return 0
    return int(min(free / a_token, max(LONGEST_ROW, stage.max_length))) // ROW_UNIT * ROW_UNIT


def units_of_step(stage: TrainStage, tokens: float) -> float:
    """Sequences, pairs, or prompts of one step; where the batch counts tokens, as many as have so many, of this mean length."""
    if isinstance(stage, TokenBatched) and stage.batch_tokens is not None:
        return stage.batch_tokens / tokens
    return stage.prompts if isinstance(stage, Rlvr) else stage.batch


def optimizer_steps(stage: TrainStage, rows: int | None, tokens: float = 1.0) -> int | None:
    """Steps of a stage: as stated, or by its epochs over a mix of rows with this mean length; None where they are not known."""
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None
    return None if rows is None else math.ceil(rows * stage.epochs / units_of_step(stage, tokens))
