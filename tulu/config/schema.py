"""What a recipe may contain: every field, with its type, its default and one line of meaning.

A recipe is one YAML file for one model, with one section for each stage. Nothing here imports torch, and nothing changes
a recipe after it was loaded (tulu/config/load.py loads, overrides and checks).
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from tulu.config.algorithm import Algorithm
from tulu.config.merging import Merge, MergedModel
from tulu.config.options import USUAL_ANSWER, USUAL_BATCH, BadGolds, EngineName
from tulu.config.parts import (
    Lora,
    Named,
    NonNegative,
    OneEnvironment,
    OneRewardModel,
    OneSignal,
    Resources,
    RewardModelSettings,
    RewardModelSignal,
    Section,
    Source,
    Sources,
    TemplateHash,
    Texts,
    Trackers,
    Unknown,
    ValueModelSettings,
    VerifierSettings,
    section_in,
    with_own_rows,
)
from tulu.config.stages import Stage
from tulu.config.training import FixedData, TokenBatched, TrainStage
from tulu.verifiers.contract import Mode

__all__ = [
    "Lora",
    "Merge",
    "MergedModel",
    "Resources",
    "RewardModelSettings",
    "RewardModelSignal",
    "Section",
    "Source",
    "Sources",
    "TrainStage",
    "ValueModelSettings",
]

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PLANNED = frozenset({"base.tokenizer"})
"""Fields that nothing reads yet. Any value but the default is refused until a field has a reader and leaves this list."""


class Sft(TokenBatched):
    """Supervised fine-tuning on the assistant's turns."""

    loss: Literal["sum", "micro_mean", "token"] = "token"
    """What the loss is divided by: sum (released Tülu 3 and OLMo 2), micro_mean (open-instruct since #1024), token (exact
    global mean)."""
    loss_micro_batch: PositiveInt = 1
    """Sequences in a micro-batch of the original training run, by which sum and micro_mean are defined; not micro_batch."""
    over_length: Literal["truncate", "drop"] = "truncate"
    """What becomes of a row over max_length: truncate cuts it off, as the released models were trained, so that its last turn has
    no end; drop leaves it out."""


class Base(TokenBatched):
    """Next-token training of a new model on every token of plain text; for models made from scratch."""

    config: dict[str, int | float | str | bool | list[int] | None]
    """Configuration of the new model as transformers takes it, with its model_type."""
    tokenizer: str = "bytes"
    """Tokenizer that is made for the model: bytes has one token for each byte, and special tokens."""


class Dpo(FixedData):
    """Direct preference optimisation against the model the stage starts from."""

    loss: Literal["dpo", "dpo_norm", "simpo"] = "dpo_norm"
    """dpo compares summed log-probs, dpo_norm log-probs averaged over the length, simpo averaged ones without a reference."""
    beta: PositiveFloat = 5.0
    """Strength of the pull towards the reference policy."""
    labels: Literal["all", "last"] = "last"
    """Turns whose log-probs are compared: the last of each side, or all of the assistant's (open-instruct until June 2025)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Assumed probability that a pair's label is wrong."""
    gamma_beta_ratio: NonNegative = 0.3
    """Target margin of simpo, divided by beta."""


class Rm(FixedData):
    """Reward model: a scalar head on the trunk of the model, trained with the Bradley-Terry loss on pairs."""

    centre: NonNegative = 0.0
    """Weight of the term (r_chosen + r_rejected)², which keeps rewards around zero."""


def _data_or_environment(schema: dict[str, Any]) -> None:
    """Say in a JSON schema that an environment may bring the rows."""
    schema["required"] = [name for name in schema["required"] if name != "data"]
    schema["anyOf"] = [{"required": ["data"]}, {"required": ["env"]}]


class Rlvr(Algorithm):
    """Reinforcement learning with verifiable rewards: GRPO over groups of sampled completions."""

    model_config = ConfigDict(json_schema_extra=_data_or_environment)

    verifier: str | None = None
    """Verifier of every row; null takes the one that each row names in its `dataset` field."""
    verifier_mode: Mode = "strict"
    """How verifiers grade: strict by the meaning, tulu3 as open-instruct @ e6c3044 does, tulu3-2024 as it did when Tülu 3 and
    OLMo 2 were trained."""
    verifier_settings: VerifierSettings | None = None
    """What verifiers of programs and judges take where a row names nothing else."""
    env: OneEnvironment = None
    """Environment that the policy acts in by calling tools, a path or a section; null samples one answer to each prompt."""
    reward_model: OneSignal = None
    """Reward model beside the verifiers, or alone in rows whose only verifier is reward_model; a path or a section."""
    bad_golds: BadGolds = "stop"
    """stop ends the run where over 1 % of a source's ground truths, stated as answers, are not graded right; skip leaves out any
    number of them."""
    prompts: PositiveInt
    """Prompts of one step; batch = prompts × samples."""
    samples: PositiveInt
    """Completions per prompt; 1 is allowed only where completions are not compared with each other (advantage gae or none)."""
    max_prompt: PositiveInt
    """Most tokens of a prompt; longer prompts are left out and counted."""
    max_tokens: PositiveInt
    """Most tokens of a completion."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; the log-probs in training are taken at it too."""
    stop: Texts = ()
    """Texts that end a completion, besides the end-of-turn token."""
    engine: EngineName = "auto"
    """What samples: auto is vllm where it is installed and there is a GPU, else transformers in this process."""
    resources: Resources = Resources()
    """How many processes train, sample and grade, and where; a section."""
    max_staleness: Annotated[int, Field(ge=0)] = 0
    """Most steps by which a token may be older than the weights that train on it: 0 samples and trains in turn, on-policy; above
    it engines run ahead, with at most (max_staleness + 1) × prompts drawn and not yet trained."""
    rollout_seconds: PositiveFloat = 1800.0
    """Deadline of one completion with engines of their own; a later one is sent again, with the tokens it has. The engine of the
    learner (`engines: 0`) is asked once."""
    reward_scale: PositiveFloat = 10.0
    """Reward of a right answer (open-instruct's verification_reward)."""
    no_stop_score: float | None = None
    """Reward that replaces the verifier's where a completion did not stop; null keeps the verifier's."""
    mask_truncated: bool = False
    """Leave completions that did not stop out of the loss; they still count in their group's statistics."""
    refill: bool = True
    """Replace groups whose rewards are all equal by further prompts, so that a step is full; after eight such groups in turn a
    place of the step stays empty."""
    drop_equal: bool = False
    """Leave groups whose rewards are all equal out of the loss and of what it is divided by, where refill does not replace them
    (open-instruct's filter_zero_std_samples); a step may then be smaller."""
    retire_at: Annotated[float, Field(gt=0, le=1)] | None = None
    """Mean score from which on a problem is drawn no more in the epochs that follow (open-instruct's no_resampling_pass_rate);
    null draws all of them in every epoch."""

    @model_validator(mode="before")
    @classmethod
    def _rows_of_environment(cls, fields: object) -> object:
        """Write `data` where the environment brings its own rows, so that everything that describes data finds it."""
        return with_own_rows(fields) if isinstance(fields, dict) and "data" not in fields else fields


class NamedRlvr(Rlvr, Named):
    """One of several RLVR stages of a recipe, which run one after the other."""


ONE, SEVERAL = "one stage", "several stages"
"""What tells the two forms of rlvr apart in the places of pydantic's messages; no key has a space."""
OneOrSeveral = Annotated[
    Annotated[Rlvr, Tag(ONE)] | Annotated[tuple[NamedRlvr, ...], Field(min_length=1, strict=False), Tag(SEVERAL)],
    Discriminator(lambda value: SEVERAL if isinstance(value, list | tuple) else ONE),
]


class Evaluate(Section):
    """Greedy or sampled answers on a task, scored by its verifier."""

    task: str
    """gsm8k, math, sums, or any name for rows that have messages and ground_truth; `tulu run` measures it after every stage."""
    suite: str | None = None
    """Suite that the last model does as well: tulu3-dev, tulu3-unseen, olmo2, code, or a YAML file (docs/evaluation.md)."""
    skip: Texts = ()
    """Tasks of the suite that are not done."""
    judge: str | None = None
    """Model that compares answers, for the tasks of the suite that need one."""
    judge_endpoint: str | None = None
    """OpenAI-compatible base URL of the judge; null runs it here."""
    data: Sources | None = None
    """Rows to answer; default: those of the task."""
    env: OneEnvironment = None
    """Environment that the model acts in, as in rlvr: each answer is an episode. An environment that scores is the verifier."""
    verifier: str | None = None
    """Verifier of every row; default: the one of the task."""
    bad_golds: BadGolds = "stop"
    """stop ends the run where over 1 % of a source's ground truths, stated as answers, are not graded right; skip leaves out any
    number of them."""
    max_tokens: PositiveInt = USUAL_ANSWER
    """Most tokens of an answer. Where a recipe does not say, a model with few positions gets half of them."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 is greedy."""
    limit: PositiveInt | None = None
    """How many of the first rows are answered; null answers all."""
    engine: EngineName = "auto"
    """What samples, as in rlvr."""
    batch: PositiveInt = USUAL_BATCH
    """Prompts that are answered side by side."""
    best_of: Annotated[int, Field(ge=2)] | None = None
    """Answers sampled per problem, of which the reward model picks one; needs reward_model and a temperature above 0."""
    reward_model: OneRewardModel = None
    """Reward model that picks the best of `best_of` answers; a path or a section."""
    seed: int = 1
    """Seed of sampling, where temperature is above 0."""

    @model_validator(mode="before")
    @classmethod
    def _rows_of_environment(cls, fields: object) -> object:
        """Write `data` where the environment brings its own rows."""
        return with_own_rows(fields) if isinstance(fields, dict) and fields.get("data") is None else fields


def labels_of(section: TrainStage) -> Literal["all", "last"]:
    """The assistant's turns of a pair that are trained: those that DPO compares, else the last."""
    return section.labels if isinstance(section, Dpo) else "last"


class Recipe(Section):
    """One model, and one section for each stage, in the order in which the stages run."""

    name: Annotated[str, Field(pattern=RUN_NAME)]
    """Name of the run, whose folders are runs/NAME/STAGE; letters, digits, dot, dash and underscore."""
    model: str | None = None
    """Base model, a folder or a hub name; null where the base stage makes it."""
    revision: str | None = None
    """Commit or tag of the base model on the hub."""
    seed: int = 1
    """Seed of every stage that sets none itself."""
    template: str = "tokenizer"
    """Chat template: a name of docs/templates.md such as tulu, a .jinja file beside the recipe, or tokenizer (the tokenizer's
    own; an error where it has none). tokenizer:NAME is the one of that name where a tokenizer has several."""
    template_hash: TemplateHash = None
    """Hash of the template's text, as manifest.json and docs/templates.md give it; another text is refused."""
    tracker: Trackers = ()
    """Where figures and sample answers go beside metrics.jsonl: wandb, tensorboard, mlflow, trackio, a list of them, or none."""
    trust_remote_code: bool = False
    """Run the Python code that a model's folder or repository brings along, on this machine; only for code that you have read."""
    resize_embeddings: bool = False
    """Give the model embeddings for tokens that its tokenizer has and it has not; they begin at the mean of the others."""
    base: Base | None = None
    """Training of a new base model from scratch."""
    sft: Sft | None = None
    """Supervised fine-tuning."""
    merge: Merge | None = None
    """Weighted mean of several models, from which the stages after it start."""
    dpo: Dpo | None = None
    """Preference optimisation, from the SFT model."""
    rm: Rm | None = None
    """Reward model, from the SFT model."""
    rlvr: OneOrSeveral | None = None
    """Reinforcement learning, from the DPO model (else the SFT model). A list of sections, each with a name, is several stages,
    each from the one before."""
    evaluate: Evaluate | None = None
    """Held-out accuracy after every stage that yields a policy."""
    unknown: Unknown = ()
    """Fields that the original never published, each as `section.field: why`. What stands there is a stand-in, with which nothing
    trains until the field is overridden."""

    @model_validator(mode="before")
    @classmethod
    def _seed_every_stage(cls, fields: object) -> object:
        """Write the recipe's seed into every section that sets none, so that a resolved recipe states every seed."""
        if not isinstance(fields, dict) or "seed" not in fields:
            return fields
        classes = {name: section_in(info.annotation) for name, info in cls.model_fields.items()}
        sections = {name for name, section in classes.items() if section is not None and "seed" in section.model_fields}

        def seeded(value: object) -> object:
            if isinstance(value, list | tuple):
                return [seeded(section) for section in value]
            return {"seed": fields["seed"], **value} if isinstance(value, dict) else value

        return {name: seeded(value) if name in sections else value for name, value in fields.items()}


def clip_norms(stage: TrainStage) -> tuple[float | None, ...]:
    """Largest norms of the gradients that are clipped apart: one, or the policy's and the value model's where it has its own."""
    own = stage.value.clip_norm if isinstance(stage, Rlvr) and stage.value is not None else None
    return (stage.clip_norm,) if own is None else (stage.clip_norm, own)


def drops_long(stage: Stage, section: TrainStage) -> bool:
    """Whether a stage leaves out rows longer than `max_length`, rather than cutting them off."""
    return section.over_length == "drop" if isinstance(section, Sft) else stage.drops_long
