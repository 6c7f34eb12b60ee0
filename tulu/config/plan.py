"""What a recipe would do, worked out without a model and without a network: batch, steps, memory, time and cost.

Memory and time are estimates by the formulas in the docstrings; what they assume is printed beside them.
"""

import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.checks import micro_batch
from tulu.config.options import Gpu, PlanOptions
from tulu.config.recipe_stages import model_named_by, stages_in
from tulu.config.schema import Dpo, Recipe, Rlvr, Source, TrainStage
from tulu.config.tasks import GENERATED

GPUS: Mapping[Gpu, tuple[float, float]] = {"a100": (312e12, 80), "h100": (989e12, 80), "h200": (989e12, 141)}
"""Peak dense bf16 FLOP/s and GiB of memory, from the makers' data sheets."""


SPREAD: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "zero1": ("masters", "moments"),
    "zero2": ("masters", "moments", "gradients"),
    "zero3": ("masters", "moments", "gradients", "weights"),
    "fsdp2": ("masters", "moments", "gradients", "weights"),
}
"""What each sharding spreads over the processes."""


@dataclass(frozen=True)
class Size:
    """A model's size; what follows `active` is 0 where only the number of parameters is known."""

    parameters: float
    active: float
    """Parameters that one token passes through: fewer than all in a mixture of experts."""
    layers: int = 0
    hidden: int = 0
    """Width of a token's hidden state."""
    kv: int = 0
    """Width of a token's keys, and of its values."""
    feed_forward: int = 0
    """Width of the feed-forward layer, summed over the experts that one token passes through."""


def batch_equation(stage: TrainStage, processes: int) -> str:
    """The batch of one optimizer step as the product of processes, micro-batch and micro-batches taken one after the other."""
    minibatches = stage.minibatches if isinstance(stage, Rlvr) else 1
    batch = stage.batch // minibatches
    micro = micro_batch(batch, stage.micro_batch, processes)
    accumulation = max(1, batch // (processes * micro))
    counted = f"{processes} process" if processes == 1 else f"{processes} processes"
    text = f"global batch {batch} = {counted} × micro-batch {micro} × accumulation {accumulation}"
    return text if minibatches == 1 else f"{text}, {minibatches} such minibatches a step"


def model_size(name: str | None, config: Mapping[str, Any] | None = None) -> Size | None:
    """The size of a local model folder, a cached hub model or a configuration; None where it is not known offline."""
    try:
        return _count(config if config is not None else _config(name))
    except KeyError:
        return None


def _config(name: str | None) -> Mapping[str, Any]:
    """The configuration of a model; empty where it is not known offline."""
    if name is None:
        return {}
    path = Path(name) / "config.json"
    if not path.is_file():
        from huggingface_hub import try_to_load_from_cache

        cached = None if Path(name).is_absolute() else try_to_load_from_cache(name, "config.json")
        if not isinstance(cached, str):
            return {}
        path = Path(cached)
    return dict(json.loads(path.read_text()))


def _count(config: Mapping[str, Any]) -> Size:
    """Parameters of a decoder with gated feed-forward layers, norms left out (under 0.1 %).

    Per layer: queries and output h·n·d each, keys and values h·k·d each, three matrices h·f for each expert.
    """
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    width = config.get("head_dim") or hidden // heads
    kv = (config.get("num_key_value_heads") or heads) * width
    feed_forward = config.get("moe_intermediate_size") or config["intermediate_size"]
    experts = config.get("num_experts") or config.get("num_local_experts") or 1
    used = config.get("num_experts_per_tok") or 1
    attention = 2 * hidden * heads * width + 2 * hidden * kv
    router = hidden * experts if experts > 1 else 0
    embeddings = config["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)

    def total(n: int) -> float:
        return float(layers * (attention + router + n * 3 * hidden * feed_forward) + embeddings)

    return Size(total(experts), total(used), layers, hidden, kv, used * feed_forward)


def memory(stage: TrainStage, size: Size, processes: int) -> dict[str, float]:
    """Bytes on one process, by what they hold.

    fp32: weights, gradients and AdamW's two moments take 4, 4 and 8 bytes a trained parameter. bf16 and fp16: weights of 2
    bytes, and behind the trained ones float32 masters and gradients of 4 bytes each, moments of 8. Sharding: zero1 spreads
    masters and moments over the processes, zero2 also gradients, zero3 also weights; fsdp2 spreads all of it, and its shards
    of the weights are float32, the masters themselves. A frozen reference (RLVR with beta above 0) takes another set of
    weights. Offloaded moments lie in the memory of the CPU and are left out. With LoRA about 2 % of the parameters are trained.
    PPO's value model, taken to be as large as the policy, has all of it and activations of its own.
    Activations of a row: 8 hidden + 2 kv + 4 feed-forward values a token and layer (what a gated block keeps for its
    backward pass, attention scores excepted: neither SDPA nor varlen attention stores them); with gradient
    checkpointing one hidden vector a token and layer, and one layer in full; selective checkpointing also keeps attention's
    output and every second product (1 hidden, and 1 hidden + 1 kv + 1 feed-forward).
    """
    element = 4 if stage.precision == "fp32" else 2
    trained = size.parameters * (0.02 if stage.lora else 1.0)
    models = 2 if isinstance(stage, Rlvr) and stage.value is not None else 1
    spread = SPREAD[stage.sharding]
    over = {part: processes if part in spread else 1 for part in ("weights", "masters", "gradients", "moments")}
    # Shards of FSDP2 have the dtype of the masters.
    has_masters = element == 2 and not (stage.sharding == "fsdp2" and processes > 1)
    amounts = {"weights": models * (element if has_masters else 4) * size.parameters / over["weights"]}
    if has_masters:
        amounts["masters"] = models * 4 * trained / over["masters"]
    amounts["gradients"] = models * 4 * trained / over["gradients"]
    if not stage.offload_optimizer:
        amounts["moments"] = models * 8 * trained / over["moments"]
    if isinstance(stage, Rlvr) and stage.beta > 0:
        amounts["reference"] = element * size.parameters / over["weights"]
    if size.layers:
        block = 8 * size.hidden + 2 * size.kv + 4 * size.feed_forward
        kept = {False: block, True: size.hidden, "selective": 3 * size.hidden + size.kv + size.feed_forward}
        values = size.layers * kept[stage.gradient_checkpointing] + (block if stage.gradient_checkpointing else 0)
        amounts["activations"] = float(models * element * stage.row_limit * values)
    return amounts


def flops_per_token(stage: TrainStage, size: Size) -> float:
    """FLOPs of training on one token, attention scores left out.

    6 N: 2 forward and 4 backward (Kaplan et al. 2020, arXiv 2001.08361 §2.1); 2 more to recompute under gradient
    checkpointing, 1 where it is selective; 2 for a reference pass of DPO or of RLVR with beta above 0; 2 to sample in RLVR; PPO
    trains twice as much.
    """
    factor = 6.0 + {False: 0.0, True: 2.0, "selective": 1.0}[stage.gradient_checkpointing]
    if isinstance(stage, Dpo) and stage.loss != "simpo":
        factor += 2.0
    if isinstance(stage, Rlvr):
        factor *= stage.updates * (1.0 if stage.value is None else 2.0)
        factor += 2.0 + (2.0 if stage.beta > 0 else 0.0)
    return factor * size.active


def count_rows(sources: Sequence[Source]) -> int | None:
    """Rows of a mix whose sources state a count, are generated, or are local JSONL; None if another source is among them."""
    total = 0.0
    for source in sources:
        rows = source.count if source.count is not None else _rows_of(source)
        if rows is None:
            return None
        total += rows * (source.fraction or 1.0)
    return round(total)


def _rows_of(source: Source) -> int | None:
    task, colon, split = source.name.partition(":")
    if colon and task in GENERATED:
        return GENERATED[task].get(split)
    path = Path(source.name).expanduser()
    if not path.is_file() or ".jsonl" not in path.name:
        return None
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def optimizer_steps(stage: TrainStage, rows: int | None) -> int | None:
    """Optimizer steps of a stage: as stated, or by its epochs over the mix; None where the rows are not known."""
    if stage.steps is not None:
        return stage.steps
    assert stage.epochs is not None
    drawn = stage.prompts if isinstance(stage, Rlvr) else stage.batch
    return None if rows is None else math.ceil(rows * stage.epochs / drawn)


def size_for(recipe: Recipe, stage: TrainStage, options: PlanOptions) -> Size | None:
    """The size of the model that a stage trains; None where it is not known offline."""
    if options.parameters is not None:
        return Size(options.parameters, options.parameters)
    new_model = recipe.base.config if recipe.base is not None else None
    start = model_named_by(stage.start, stages_in(dict(recipe)))
    return model_size(start or recipe.model, None if start else new_model)
