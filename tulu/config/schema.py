"""What a recipe may say: every field, its type, its default and one line of meaning.

A recipe is one YAML file for one model, with one section per stage. Nothing here imports torch, and
nothing rewrites a recipe after it was loaded (tulu/config/load.py loads, overrides and checks).
"""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from tulu.config.parts import (
    Judge,
    Lora,
    NonNegative,
    OneJudge,
    OneSignal,
    OneValue,
    Probability,
    RewardSignal,
    Section,
    Source,
    Sources,
    Texts,
    Value,
)

__all__ = ["Judge", "Lora", "RewardSignal", "Section", "Source", "Sources", "Value"]


class TrainStage(Section):
    """What every training stage shares."""

    start: str | None = None
    """Model folder or hub name to start from; default: the earlier stage found in runs/, else `released`, else `model`."""
    released: str | None = None
    """The published checkpoint this stage starts from, where the earlier stage was not run here."""
    data: Sources
    """The mix: a path, or a list of {name, fraction | count, split, revision}."""
    max_length: PositiveInt
    """Most tokens of one sequence, prompt and completion together."""
    batch: PositiveInt
    """Sequences (SFT), pairs (DPO, RM) or completions (RLVR) of one optimizer step, over all processes."""
    micro_batch: PositiveInt = 8
    """Most sequences, pairs or completions that share a row on one process; accumulation is derived from it."""
    row_tokens: PositiveInt = 8192
    """Most tokens of a packed row: what fits in memory. It changes speed, never a gradient."""
    epochs: PositiveFloat | None = None
    """Passes over the mix; either this or steps."""
    steps: PositiveInt | None = None
    """Optimizer steps; either this or epochs."""
    learning_rate: PositiveFloat
    """Peak learning rate."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """Shape after the warm-up; linear and cosine end at 0."""
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
    """Largest global gradient norm; null leaves gradients alone."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Arithmetic of the forward and backward pass; weights and AdamW's moments are float32 either way."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: 0 none, 1 optimizer, 2 and gradients, 3 and weights sharded."""
    lora: Lora | None = None
    """Train adapters instead of all weights."""
    seed: int = 1
    """Of the order of rows, of dropout and of sampling."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints; null saves only at the end."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints that are kept."""


class Sft(TrainStage):
    """Supervised fine-tuning on the assistant's turns."""

    loss: Literal["sum", "micro_mean", "token"] = "token"
    """Normaliser: sum (released Tülu 3 / OLMo 2), micro_mean (open-instruct since #1024), token (exact global mean)."""
    loss_micro_batch: PositiveInt = 1
    """Sequences in one micro-batch of the original, by which sum and micro_mean are defined; independent of micro_batch."""


class Base(TrainStage):
    """Next-token training of a new model on every token of plain text; for models made from scratch."""

    config: dict[str, int | float | str | bool | list[int] | None]
    """transformers configuration of the new model, with its model_type."""
    tokenizer: Literal["bytes"] = "bytes"
    """Tokenizer to make: bytes is one token a byte, plus special tokens."""


class Dpo(TrainStage):
    """Direct preference optimisation against the model the stage starts from."""

    loss: Literal["dpo", "dpo_norm", "simpo"] = "dpo_norm"
    """dpo on summed, dpo_norm on length-averaged log-probs, simpo averaged and without reference."""
    beta: PositiveFloat = 5.0
    """Strength of the pull towards the reference policy."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Probability that a label is wrong."""
    gamma_beta_ratio: NonNegative = 0.3
    """simpo's target margin over beta."""


class Rm(TrainStage):
    """Reward model: a scalar head on the shared trunk, Bradley-Terry on pairs."""

    centre: NonNegative = 0.0
    """Weight of (r_chosen + r_rejected)², which keeps rewards around zero."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the pairs kept from training to report accuracy on."""


class Rlvr(TrainStage):
    """Reinforcement learning with verifiable rewards: GRPO over groups of sampled completions."""

    verifier: str | None = None
    """Verifier of every row; null takes each row's own (its `dataset` field)."""
    reward_model: OneSignal = None
    """A learned score beside the verifiers, or alone in rows whose only verifier is reward_model; a path, or a section."""
    prompts: PositiveInt
    """Prompts of one step; batch = prompts × samples."""
    samples: PositiveInt
    """Completions per prompt; 1 only where a value model is what they are compared with."""
    max_prompt: PositiveInt
    """Most prompt tokens; longer prompts are left out and counted."""
    max_tokens: PositiveInt
    """Most tokens of a completion."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature; training log-probs use it too."""
    stop: Texts = ()
    """Texts besides the end-of-turn token that end a completion."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What samples: auto is vllm where it is installed and there is a GPU, else transformers in this process."""
    max_staleness: Literal[0] = 0
    """Optimizer steps a rollout may lag behind the learner; 0 is on-policy."""
    advantage: Literal["standard", "centred", "loo", "gae"] = "centred"
    """standard (s-μ)/σ, centred s-μ, loo s minus the mean of the others; gae is PPO: against `value`, token by token."""
    value: OneValue = None
    """The value model of gae, trained beside the policy; a path, or a section."""
    ddof: Literal[0, 1] = 0
    """Of the standard deviation in standard: 1 in Tülu 3.1's code, 0 in grpo_fast."""
    reward_scale: PositiveFloat = 10.0
    """Reward of a right answer (open-instruct's verification_reward)."""
    no_stop_score: float | None = None
    """Reward that replaces the verifier's where a completion did not stop; null keeps the verifier's."""
    mask_truncated: bool = False
    """Leave completions that did not stop out of the loss; they stay in their group's statistics."""
    refill: bool = True
    """Replace groups whose rewards are all equal by further prompts, so that a step is always full."""
    minibatches: PositiveInt = 1
    """Optimizer steps into which one step's rollouts are split."""
    updates: PositiveInt = 1
    """Passes over one step's rollouts."""
    clip_low: Probability = 0.2
    """Ratios below 1 - clip_low get no gradient."""
    clip_high: NonNegative = 0.2
    """Ratios above 1 + clip_high get no gradient (clip-higher: 0.272)."""
    denominator: Literal["token", "constant", "sequence"] = "token"
    """What the loss is divided by: tokens trained, batch × max_tokens, or each sequence's length and then batch."""
    kl: Literal["k1", "k2", "k3", "k4"] = "k3"
    """KL estimator, by its name."""
    beta: NonNegative = 0.0
    """Weight of the KL term to the starting model: in the loss, or for gae in every token's reward; 0 keeps no reference."""
    ratio_cap: PositiveFloat | None = 2.0
    """Cap of the truncated importance ratio learner/sampler; null does not correct."""


class Evaluate(Section):
    """Greedy (or sampled) answers on a task, scored by its verifier."""

    task: str
    """gsm8k, math, sums, or any name for rows that carry messages and ground_truth."""
    data: Sources | None = None
    """Rows; default: the task's own."""
    verifier: str | None = None
    """Default: the task's own."""
    max_tokens: PositiveInt = 512
    """Most tokens of an answer."""
    temperature: NonNegative = 0.0
    """0 is greedy."""
    limit: PositiveInt | None = None
    """First rows only."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """As in rlvr."""
    batch: PositiveInt = 256
    """Prompts that are answered side by side."""
    best_of: Annotated[int, Field(ge=2)] | None = None
    """Answers sampled per problem, of which the reward model picks one; needs reward_model and a temperature above 0."""
    reward_model: OneJudge = None
    """What picks the best of `best_of` answers; a path, or a section."""
    seed: int = 1
    """Of sampling, where temperature is above 0."""


SEEDED = ("base", "sft", "dpo", "rm", "rlvr", "evaluate")
"""Sections that have a seed."""


class Recipe(Section):
    """One model, one section per stage, in the order they run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Of the run: its folder is runs/NAME/STAGE; letters, digits, dot, dash and underscore."""
    model: str | None = None
    """Base model: a folder or a hub name; null where the base stage makes it."""
    revision: str | None = None
    """Commit or tag of the base model on the hub."""
    seed: int = 1
    """Of every stage that names none of its own."""
    template: str = "tokenizer"
    """Chat template: tulu, olmo, or tokenizer (the tokenizer's own; an error where it has none)."""
    base: Base | None = None
    """Makes the base model from scratch."""
    sft: Sft | None = None
    """Supervised fine-tuning."""
    dpo: Dpo | None = None
    """Preference optimisation, from the SFT model."""
    rm: Rm | None = None
    """Reward model, from the SFT model."""
    rlvr: Rlvr | None = None
    """Reinforcement learning, from the DPO model (else the SFT model)."""
    evaluate: Evaluate | None = None
    """Held-out accuracy after every stage that yields a policy."""

    @model_validator(mode="before")
    @classmethod
    def _seed_every_stage(cls, fields: object) -> object:
        """Write the recipe's seed into the stages that name none, so that a resolved recipe says every seed."""
        if not isinstance(fields, dict) or "seed" not in fields:
            return fields
        return {
            name: {"seed": fields["seed"], **section} if name in SEEDED and isinstance(section, dict) else section
            for name, section in fields.items()
        }
