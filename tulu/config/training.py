"""The fields that every training stage has; what a stage adds to them stands in config/schema.py."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from tulu.config.parts import Lora, NonNegative, Probability, Section, SkipSteps, Sources, TemplateHash

ROW_TOKENS = 8192
"""Most tokens of a packed row on a CPU, unless a recipe says otherwise."""
MEMORY_FIELDS = ("row_tokens", "micro_batch", "gradient_checkpointing", "offload_optimizer")
"""Fields that change what fits and how fast it is, and no gradient. A run may go on with other ones."""


class TrainStage(Section):
    """The fields that every training stage has."""

    start: str | None = None
    """Model folder or hub name to start from, or an earlier stage of the recipe: sft is its model, sft@step-600 the one that it
    kept then (keep_every). Default: the earlier stage's model in runs/, else `released`, else `model`."""
    released: str | None = None
    """Published checkpoint to start from where the earlier stage was not run here."""
    data: Sources
    """The mix: a path, or a list of {name, fraction | count, split, revision}."""
    max_length: PositiveInt
    """Most tokens of one sequence, prompt and completion together."""
    batch: PositiveInt
    """Sequences (SFT), pairs (DPO, RM) or completions (RLVR) of one optimizer step, over all processes."""
    micro_batch: PositiveInt = 8
    """Most sequences, pairs or completions that one process takes side by side; accumulation follows from it."""
    row_tokens: PositiveInt | Literal["auto"] = "auto"
    """Most tokens of a packed row, which bounds memory. It changes the speed, never a gradient. auto is 8192 on a CPU; on a GPU
    it is the longest row that fits, measured once, with as many documents as it holds, whatever micro_batch says."""
    epochs: PositiveFloat | None = None
    """Passes over the mix; give either epochs or steps."""
    steps: PositiveInt | None = None
    """Optimizer steps; give either steps or epochs."""
    learning_rate: PositiveFloat
    """Peak learning rate."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """Shape of the learning rate after the warm-up; linear and cosine end at 0."""
    warmup: Probability = 0.0
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay."""
    adam_beta1: Probability = 0.9
    """AdamW's decay of the first moment."""
    adam_beta2: Probability = 0.999
    """AdamW's decay of the second moment."""
    adam_epsilon: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    clip_norm: PositiveFloat | None = None
    """Largest global norm of the gradient, which is scaled down to it; null never scales."""
    skip_steps: SkipSteps | None = None
    """Pass over a step whose loss or gradient norm stands out from those before (OLMo-core's SkipStepAdamW); null takes all."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Weights and activations; behind bf16 and fp16 the optimizer keeps float32 weights. fp16 is for cards without bf16."""
    gradient_checkpointing: bool | Literal["selective"] = False
    """Recompute activations in the backward pass: true whole layers, for the least memory and about a third more time; selective
    all but attention and every second matrix product, for half of that time."""
    sharding: Literal["none", "zero1", "zero2", "zero3", "fsdp2"] = "none"
    """What several processes spread: none nothing, zero1 (DeepSpeed) the optimizer, zero2 gradients too, zero3 weights too,
    fsdp2 (torch) all of it."""
    zero: Literal[0, 1, 2, 3] | None = None
    """The old spelling of sharding: 0 is none, 1 is zero1, and so on."""
    offload_optimizer: bool = False
    """Keep AdamW's moments in the memory of the CPU, 8 bytes a trained weight; a step waits for them to come and go."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights."""
    template: str | None = None
    """Chat template of this stage, where it is another than the recipe's."""
    template_hash: TemplateHash = None
    """Hash of this stage's own template."""
    seed: int = 1
    """Seed of the order of rows, of dropout and of sampling."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; null saves only at the end."""
    keep_checkpoints: PositiveInt = 2
    """How many of the newest checkpoints are kept."""
    keep_every: PositiveInt | None = None
    """Steps between models that are kept, in models/step-000600 of the stage's folder, to evaluate or to start from; null keeps
    the last alone."""
    eval_every: PositiveInt | None = None
    """Steps between two looks at rows that are not trained on and at the answers to a task; a look follows the last step too.
    null never looks."""
    eval_task: str | None = None
    """Task whose problems are answered greedily at each look: gsm8k, math, sums, or a file of rows that have messages and
    ground_truth."""
    eval_rows: PositiveInt = 128
    """Most problems and most rows of one look; they are the same ones each time."""
    released_values: dict[str, Any] = Field(default_factory=dict)
    """What the original run set and nothing here reads, under its own names; kept so that a released recipe is whole."""

    @property
    def row_limit(self) -> int:
        """Most tokens of a packed row, where nobody has measured how many fit."""
        return ROW_TOKENS if self.row_tokens == "auto" else self.row_tokens

    @model_validator(mode="before")
    @classmethod
    def _read_old_spelling(cls, fields: object) -> object:
        """Write `sharding` where a recipe says `zero`, so that nothing else has to know both."""
        if isinstance(fields, dict) and fields.get("zero") is not None and "sharding" not in fields:
            return {**fields, "sharding": sharding_of(fields["zero"])}
        return fields


class FixedData(TrainStage):
    """A stage whose rows are there before it begins, so that some of them can be kept from training."""

    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the rows that is not trained on, whose loss eval_every measures; a reward model reports its accuracy on them."""
    eval_data: Sources | None = None
    """Rows of their own in place of a share, in a form that `data` may have; those that are also trained on are left out."""
    eval_tokens: PositiveInt = 256
    """Most tokens of an answer at a look."""


def _batch_or_tokens(schema: dict[str, Any]) -> None:
    """Say in a JSON schema that one of the two counts the batch."""
    schema["required"] = [name for name in schema["required"] if name != "batch"]
    schema["anyOf"] = [{"required": ["batch"]}, {"required": ["batch_tokens"]}]


class TokenBatched(FixedData):
    """A stage whose batch may count tokens."""

    model_config = ConfigDict(json_schema_extra=_batch_or_tokens)

    batch_tokens: PositiveInt | None = None
    """Tokens of one optimizer step, in place of sequences: a step takes rows until it has so many. `batch` is left out then, and
    becomes batch_tokens / max_length, the full rows of a step (OLMo-core's global_batch_size)."""

    @model_validator(mode="before")
    @classmethod
    def _count_full_rows(cls, fields: object) -> object:
        """Write `batch` where a recipe counts tokens, so that everything that describes a batch has a number."""
        if not isinstance(fields, dict) or "batch" in fields:
            return fields
        tokens, length = fields.get("batch_tokens"), fields.get("max_length")
        counts = all(type(number) is int and number > 0 for number in (tokens, length))
        return {**fields, "batch": full_rows(tokens, length)} if counts else fields


def sequences_of(stage: TrainStage) -> int:
    """Most sequences, pairs or completions that one optimizer step may have: none has less than a token."""
    return stage.batch_tokens if isinstance(stage, TokenBatched) and stage.batch_tokens is not None else stage.batch


def full_rows(batch_tokens: Any, max_length: Any) -> int:
    """Rows of max_length tokens in a batch that counts tokens."""
    return max(1, int(batch_tokens) // int(max_length))


def sharding_of(zero: object) -> str:
    """What the old field `zero` says, as `sharding` says it."""
    return f"zero{zero}" if zero else "none"
