"""What several sections of a recipe are made of: data sets, adapters, reward models, and the rules of every section. No torch."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Fraction = Annotated[float, Field(gt=0)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """Frozen, and strict about unknown keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False)


class Source(Section):
    """One data set of a mix: a file, a folder, a hub name, or a generated task (`sums:sft`)."""

    name: str
    """Path of a JSONL, JSON, CSV or Parquet file (optionally .gz), a saved Arrow folder, a hub name, or TASK:SPLIT."""
    split: str = "train"
    """Split of a hub data set; files have none."""
    subset: str | None = None
    """Configuration of a hub data set, where it has several."""
    revision: str | None = None
    """Commit or tag of a hub data set."""
    fraction: Fraction | None = None
    """Share of the rows: 1.0 is all of them once, 2.5 is two copies and a half."""
    count: PositiveInt | None = None
    """Number of rows instead of a share."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction (1.0 is all rows) and count (a number of rows)")
        return self


def _as_sources(value: object) -> object:
    """A path alone means all its rows, so that `sft.data=rows.jsonl` works on the command line."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [{"name": entry, "fraction": 1.0} if isinstance(entry, str) else entry for entry in entries]


Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(_as_sources, json_schema_input_type=str | Source | list[str | Source]),
    Field(min_length=1, strict=False),
]


class Lora(Section):
    """Low-rank adapters in place of full training."""

    rank: PositiveInt = 64
    """Inner dimension of the adapters."""
    alpha: PositiveInt = 128
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Probability = 0.0
    """Dropout on the adapter's input."""
    targets: Texts | Literal["all-linear"] = "all-linear"
    """Module names to adapt; all-linear is every linear layer but the output head."""


class Judge(Section):
    """A trained reward model that scores answers."""

    path: str | None = None
    """Reward model: a folder or a hub name; null takes the one that this recipe's rm stage trained."""
    revision: str | None = None
    """Commit or tag of a reward model on the hub."""
    template: str = "tokenizer"
    """Chat template of what it reads; tokenizer is the reward model's own."""
    max_length: PositiveInt | None = None
    """Most tokens of a conversation that it reads; longer ones get no score. Default: its positions."""
    row_tokens: PositiveInt = 8192
    """Most tokens of a packed row of its forward pass."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Its arithmetic; scores close together tie in bf16."""


class RewardSignal(Judge):
    """A reward model beside the verifiers of RLVR."""

    combine: Literal["sum", "gate"] = "sum"
    """sum adds its score to reward_scale × the verifiable one; gate only where the verifiable one is positive."""
    weight: PositiveFloat = 1.0
    """Its score is multiplied by this, and not by reward_scale (open-instruct's reward_model_multiplier)."""
    transform: Literal["none", "sigmoid"] = "none"
    """sigmoid brings scores into 0 to 1, so that under gate a right answer is never worth less than a wrong one."""
    rows: Literal["all", "named"] = "all"
    """all rows, or only those whose verifiers name reward_model."""


class Value(Section):
    """The value model of PPO: a reward model whose scalar head is read at every token."""

    path: str | None = None
    """Reward model that it begins as: a folder or a hub name; default: the one of this recipe's rm stage, else `released`,
    else the stage's own start with a new head."""
    released: str | None = None
    """The published reward model that it begins as where this recipe's rm stage has trained none."""
    revision: str | None = None
    """Commit or tag of either on the hub."""
    coefficient: PositiveFloat = 0.1
    """Weight of its loss beside the policy's (vf_coef)."""
    clip: PositiveFloat = 0.2
    """Furthest that it moves within a step from what it said of the rollouts before (cliprange_value)."""
    gamma: Probability = 1.0
    """Discount of later rewards."""
    lam: Probability = 0.95
    """λ of generalised advantages: 1 trusts what came, 0 the value model."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """First steps in which it learns alone: what a reward model says of half an answer is no value yet."""
    whiten: bool = True
    """Advantages of a step to mean 0 and variance 1, over all tokens and processes."""


def _as_path(value: object) -> object:
    """A path alone, so that `evaluate.reward_model=PATH` works on the command line."""
    return {"path": value} if isinstance(value, str) else value


OneJudge = Annotated[Judge | None, BeforeValidator(_as_path, json_schema_input_type=Judge | str | None)]
OneSignal = Annotated[RewardSignal | None, BeforeValidator(_as_path, json_schema_input_type=RewardSignal | str | None)]
OneValue = Annotated[Value | None, BeforeValidator(_as_path, json_schema_input_type=Value | str | None)]
