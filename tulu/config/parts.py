"""The smaller sections that the sections of a recipe contain: data sets, adapters, reward models and value models."""

from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PositiveFloat, PositiveInt, model_validator

from tulu.config.tasksets import REASONING_GYM, VERIFIERS
from tulu.verifiers.contract import Settings

Fraction = Annotated[float, Field(gt=0)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]
Probability = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Options = dict[str, JsonValue]
TrackerName = Literal["wandb", "tensorboard", "mlflow", "trackio"]


def _as_trackers(value: object) -> object:
    """Turn one name into a list of it, and `none` into an empty one."""
    names = [] if value is None or value == "none" else [value] if isinstance(value, str) else value
    return list(dict.fromkeys(names)) if isinstance(names, list | tuple) and all(isinstance(one, str) for one in names) else names


Trackers = Annotated[
    tuple[TrackerName, ...],
    BeforeValidator(_as_trackers, json_schema_input_type=TrackerName | Literal["none"] | list[TrackerName] | None),
    Field(strict=False),
]
"""One tracker, several, or none."""
Unknown = Annotated[
    tuple[Annotated[dict[str, str], Field(min_length=1, max_length=1)], ...],
    Field(strict=False),
]
"""A list of entries `section.field: why`."""


class Section(BaseModel):
    """The base of every section: it is frozen, and it refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, strict=True, allow_inf_nan=False)


def section_in(annotation: Any, listed: bool = False) -> type[Section] | None:
    """The section class in a field's annotation, such as Lora in `Lora | None`; None where the field is no section.

    With `listed`, the class of the sections that stand in a list there.
    """
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return None if listed else annotation
    outside = listed and get_origin(annotation) is not tuple
    return next((section for inner in get_args(annotation) if (section := section_in(inner, outside)) is not None), None)


class Source(Section):
    """One data set of a mix: a file, a folder, a pattern, a hub name, or a generated task (`sums:sft`)."""

    name: str
    """Path of a JSONL, JSON, CSV, TSV, Parquet or Arrow file (optionally .gz), a folder of such files, a pattern
    (`data/*.parquet`), a saved Arrow folder, a hub name, or TASK:SPLIT; for sft also a folder of token_ids_*.npy with
    labels_mask_*.npy (OLMo-core)."""
    split: str = "train"
    """Split of a hub data set or of a folder; a file and a pattern have none."""
    subset: str | None = None
    """Configuration of a hub data set that has several; in a folder, the folder of that name."""
    revision: str | None = None
    """Commit or tag of a hub data set."""
    fraction: Fraction | None = None
    """Share of the rows: 1.0 is all of them once, 2.5 is two and a half copies."""
    count: PositiveInt | None = None
    """Number of rows, in place of a share."""
    options: Options = {}
    """Configuration of a data set that a package makes: reasoning_gym:NAME and verifiers:NAME."""
    dtype: Literal["uint8", "uint16", "uint32", "uint64"] | None = None
    """Type of the numbers in files of token ids (token_ids_*.npy); null is the smallest that holds the vocabulary."""

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction (1.0 is all rows) and count (a number of rows)")
        return self


def _as_sources(value: object) -> object:
    """Turn a path alone into a source with all its rows, so that `sft.data=rows.jsonl` works on the command line."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [{"name": entry, "fraction": 1.0} if isinstance(entry, str) else entry for entry in entries]


Sources = Annotated[
    tuple[Source, ...],
    BeforeValidator(_as_sources, json_schema_input_type=str | Source | list[str | Source]),
    Field(min_length=1, strict=False),
]


class Resources(Section):
    """What RLVR runs on: on this machine, or in the Ray cluster at RAY_ADDRESS."""

    learners: PositiveInt | None = None
    """Processes that train, one for each GPU, which Ray starts where RAY_ADDRESS names a cluster; on one machine the same as
    --gpus. null leaves it to --gpus, torchrun or srun."""
    engines: Annotated[int, Field(ge=0)] = 0
    """vLLM engines in processes of their own, which Ray starts on this machine or in the cluster at RAY_ADDRESS; 0 is the engine
    of the training process."""
    tensor_parallel: PositiveInt = 1
    """GPUs over which each engine spreads its model."""
    colocated: bool = False
    """Engines use the learners' GPUs in turn with them: while the learner trains they sleep and give their memory back, so
    max_staleness is 0."""
    adapters: Literal["merged", "apart"] = "merged"
    """What engines get of lora: merged weights, or the adapters apart: little to send, but slower to sample with (a third in
    TRL's own measurement)."""
    gpu_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The fraction of a GPU's memory that an engine takes; null is 0.9 of a GPU of its own, and 0.45 of one that learners use."""
    graders: Annotated[int, Field(ge=0)] = 0
    """Processes that grade, which Ray spreads over the nodes, each with a core of the cluster; 0 is a process for each core of
    this machine."""


class Lora(Section):
    """Low-rank adapters in place of full training."""

    rank: PositiveInt = 64
    """Inner dimension of the adapters."""
    alpha: PositiveInt = 128
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Probability = 0.0
    """Dropout on the adapter's input."""
    targets: Texts | Literal["all-linear"] = "all-linear"
    """Names of the modules that get an adapter; all-linear is every linear layer except the output head."""


class VerifierSettings(Section):
    """What verifiers take where a row of the data names nothing else; null is the verifier's own."""

    code_threshold: Probability | None = None
    """Least share of passed tests that scores more than 0 (open-instruct's code_pass_rate_reward_threshold)."""
    code_seconds: Annotated[float, Field(gt=0, le=40)] | None = None
    """CPU seconds that a program may take for one test (code_max_execution_time)."""
    judge_model: str | None = None
    """Model that the judge's endpoint is asked for (llm_judge_model), in place of TULU_JUDGE_MODEL."""
    judge_seconds: PositiveFloat | None = None
    """Seconds for one score of a judge, all attempts together (llm_judge_timeout)."""
    judge_tokens: PositiveInt | None = None
    """Most tokens of a judge's reply (llm_judge_max_tokens)."""

    @property
    def settings(self) -> Settings:
        """The same as verifiers take it."""
        return Settings(self.code_threshold, self.code_seconds, self.judge_model, self.judge_seconds, self.judge_tokens)


class SkipSteps(Section):
    """Passing over steps that stand out from those before."""

    window: Annotated[int, Field(ge=6)] = 128
    """Steps before, whose losses and gradient norms a step is compared with; from half of them on, steps are judged."""
    sigma: PositiveFloat = 6.0
    """Standard deviations above the mean of the window from which on a step is passed over."""


STAGE_NAME = r"^[a-z][a-z0-9_-]*$"
"""What a stage of a list may be called: a folder, and a part of a key that is no number and holds no dot."""


class Named(Section):
    """What a section of a list has besides, so that it can be told from the others."""

    name: Annotated[str, Field(pattern=STAGE_NAME)]
    """Name of the stage, of its folder and of its fields in overrides (rlvr.NAME.steps): small letters, digits, dashes."""


TEMPLATE_HASH = r"^[0-9a-f]{16}$"
TemplateHash = Annotated[str, Field(pattern=TEMPLATE_HASH)] | None
"""The first 16 hex digits of the SHA-256 of a chat template."""


class RewardModelSettings(Section):
    """A trained reward model that scores answers."""

    path: str | None = None
    """The reward model, a folder or a hub name; null takes the one that this recipe's rm stage trained."""
    revision: str | None = None
    """Commit or tag of a reward model on the hub."""
    template: str = "tokenizer"
    """Chat template of the conversations that the reward model reads; tokenizer is its own."""
    max_length: PositiveInt | None = None
    """Most tokens of a conversation; a longer one gets no score. Default: as many as the model has positions."""
    row_tokens: PositiveInt = 8192
    """Most tokens of a packed row in the reward model's forward pass."""
    precision: Literal["bf16", "fp32"] = "fp32"
    """Arithmetic of the reward model; in bf16, scores that lie close together become equal."""


class RewardModelSignal(RewardModelSettings):
    """A reward model beside the verifiers of RLVR."""

    combine: Literal["sum", "gate"] = "sum"
    """sum adds the reward model's score to reward_scale × the verifier's; gate adds it only where the verifier's is positive."""
    weight: PositiveFloat = 1.0
    """Factor of the reward model's score, in place of reward_scale (open-instruct's reward_model_multiplier)."""
    transform: Literal["none", "sigmoid"] = "none"
    """sigmoid maps scores to 0 to 1, so that under gate a right answer is never worth less than a wrong one."""
    rows: Literal["all", "named"] = "all"
    """all scores every row, named only the rows whose verifiers name reward_model."""


class ValueModelSettings(Section):
    """The value model of PPO: a reward model whose scalar head is read at every token."""

    path: str | None = None
    """Reward model that the value model begins as, a folder or a hub name; default: the one of this recipe's rm stage, else
    `released`, else the stage's own start with a new head."""
    released: str | None = None
    """Published reward model that the value model begins as where this recipe's rm stage has trained none."""
    revision: str | None = None
    """Commit or tag, on the hub, of the model named by path or released."""
    coefficient: PositiveFloat = 0.1
    """Weight of the value loss beside the policy's loss (vf_coef)."""
    clip: PositiveFloat = 0.2
    """Most that a value may move, within a step, from what it was when the rollouts were made (cliprange_value)."""
    clip_norm: PositiveFloat | None = None
    """Largest norm of the value model's own gradient, beside rlvr.clip_norm for the policy's; null measures both together."""
    reward_at: Literal["last", "after"] = "last"
    """Where a completion's reward lies: on its last token, or one position after, in the state where the completion has ended
    and the value model is trained too (open-instruct's PPO)."""
    gamma: Probability = 1.0
    """Discount of later rewards."""
    lam: Probability = 0.95
    """λ of generalised advantage estimation: 1 relies on the rewards that came, 0 on the value model."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """First steps in which only the value model learns, because a reward model's score of half an answer is no value yet."""
    whiten: bool = True
    """Scale the advantages of a step to mean 0 and variance 1."""
    whiten_over: PositiveInt | None = None
    """Completions that are whitened together, as many as one process of the original held; null takes those of a whole step."""


class EnvironmentSettings(Section):
    """An environment that the policy acts in by calling tools, over several turns."""

    path: str
    """FILE.py with a class, FILE.py:CLASS, verifiers:OWNER/NAME or verifiers:./folder (a task set), reasoning_gym:NAME,
    openenv:ws://HOST:PORT/ws (a server), or python (a sandbox for programs)."""
    options: Options = {}
    """Keyword arguments of the class, or the configuration of the task set or of reasoning_gym's data."""
    turns: PositiveInt = 8
    """Most turns of the policy in an episode; one that calls tools in its last is cut off there, like one that is too long."""
    episodes: PositiveInt = 256
    """Most episodes at a time, each with a process of its own."""
    parallel: PositiveInt | None = None
    """Calls of different episodes that run at the same time; null takes one for each core. Raise it for tools that wait."""
    call_seconds: PositiveFloat = 30.0
    """Most seconds of one call, of reset and of get_reward. Beyond them the episode ends without a score."""
    turn_seconds: PositiveFloat = 120.0
    """Most seconds of all calls of one turn."""
    episode_seconds: PositiveFloat = 1800.0
    """Most seconds of an episode, sampling included."""

    @property
    def acts(self) -> bool:
        """Whether anything happens between turns; problems of reasoning_gym have one turn and no tools."""
        return self.path.partition(":")[0] != REASONING_GYM

    @property
    def brings_rows(self) -> bool:
        """Whether it has rows of its own, and plays no others."""
        return _brings_rows(self.path)

    @property
    def reads_rows(self) -> bool:
        """Whether it is begun with the columns of the recipe's rows, so that it cannot play any others."""
        return self.path != "python" and not self.brings_rows


def _brings_rows(path: str) -> bool:
    return path.partition(":")[0] in (REASONING_GYM, VERIFIERS)


def with_own_rows(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a section with the rows of its environment as data, where the environment has rows: all of them, once."""
    env = _as_path(fields.get("env"))
    path = env.get("path") if isinstance(env, dict) else None
    if not isinstance(env, dict) or not isinstance(path, str) or not _brings_rows(path):
        return fields
    return {**fields, "data": [{"name": path, "fraction": 1.0, "options": env.get("options") or {}}]}


class TeacherSettings(Section):
    """The teacher of on-policy distillation: a frozen model that says what it thinks of every token that the policy sampled."""

    path: str
    """The teacher, a folder or a hub name; it must read the tokens that the policy reads."""
    revision: str | None = None
    """Commit or tag of a teacher on the hub."""
    weight: PositiveFloat = 1.0
    """Weight of the reverse KL divergence KL(policy || teacher)."""
    through: Literal["advantage", "k2", "k3", "k4"] = "advantage"
    """How it is lowered: advantage takes log π - log π_teacher off the advantage of every token; k2, k3 and k4 are estimators of
    it in the loss."""


def _as_path(value: object) -> object:
    """Turn a path alone into a section, so that `evaluate.reward_model=PATH` works on the command line."""
    return {"path": value} if isinstance(value, str) else value


OneRewardModel = Annotated[
    RewardModelSettings | None, BeforeValidator(_as_path, json_schema_input_type=RewardModelSettings | str | None)
]
OneEnvironment = Annotated[
    EnvironmentSettings | None, BeforeValidator(_as_path, json_schema_input_type=EnvironmentSettings | str | None)
]
OneTeacher = Annotated[TeacherSettings | None, BeforeValidator(_as_path, json_schema_input_type=TeacherSettings | str | None)]
OneSignal = Annotated[RewardModelSignal | None, BeforeValidator(_as_path, json_schema_input_type=RewardModelSignal | str | None)]
OneValueModel = Annotated[
    ValueModelSettings | None, BeforeValidator(_as_path, json_schema_input_type=ValueModelSettings | str | None)
]
