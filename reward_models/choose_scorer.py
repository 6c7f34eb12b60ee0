"""The one place where scorers are loaded: by --kind, or by what the model's folder says it is."""

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from tulu.errors import RecipeError
from tulu.model.load import LoadOptions, Origin, from_pretrained
from tulu.model.policy import Policy
from tulu.model.positions import longest_document
from tulu.reward_models.encoding import Limits
from tulu.reward_models.judging import JudgeScorer
from tulu.reward_models.kinds import kind_by_options
from tulu.reward_models.model import RewardModel
from tulu.reward_models.options import Kind, RewardBenchOptions
from tulu.reward_models.responders import EndpointJudge, LocalJudge
from tulu.reward_models.scorers import ClassifierScorer, DpoScorer, PlainClassifierScorer, Scorer
from tulu.reward_models.sections import Data

log = logging.getLogger("tulu")


def load_scorer(model: str, data: Data, options: RewardBenchOptions) -> Scorer:
    """The scorer of a model for `tulu rewardbench`: a classifier, a DPO policy or a judge.

    Raises RecipeError where options contradict each other or nothing says which kind the model is.
    """
    kind = detect_kind(model, options)
    if kind == "judge":
        url = options.endpoint
        responder = LocalJudge(model, options) if url is None else EndpointJudge(url, model, options.api_key_env)
        return JudgeScorer(responder, data, options)
    trusted = options.trust_remote_code
    config = from_pretrained(AutoConfig, model, trust_remote_code=trusted)
    most = longest_document(config)
    if most is not None and (options.max_length or 0) > most:
        raise RecipeError(f"--max-length {options.max_length}: the model has {most} positions")
    limits = Limits(options.max_length or most, options.add_bos, options.row_tokens)
    template = options.template or "tokenizer"
    if kind == "classifier":
        return _load_classifier(model, config, template, options.precision, limits, trust_remote_code=trusted)
    frozen: LoadOptions = {"precision": options.precision, "trust_remote_code": trusted}
    policy = Policy.load(model, template=template, trainable=False, **frozen)
    reference = None
    if options.reference is not None:
        # Rewards are compared token by token: both models must read the policy's texts.
        reference = Policy.load(options.reference, template=template, trainable=False, **frozen)
        if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise RecipeError(
                f"--reference {options.reference}: its tokenizer is not the policy's; give the model DPO started from"
            )
    return DpoScorer(policy, reference, options.reference_free or "sum", limits)


def load_reward_model(
    path: str | Path,
    *,
    template: str = "tokenizer",
    precision: str = "fp32",
    max_length: int | None = None,
    row_tokens: int = 8192,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Scorer:
    """The scorer of a trained reward model, from a folder or a hub name.

    It reads at most `max_length` tokens and no more than the model has positions. Raises RecipeError if there is no trained
    head, or the tokenizer has no template.
    """
    config = from_pretrained(AutoConfig, path, revision=revision, trust_remote_code=trust_remote_code)
    if not _is_classifier(config):
        raise RecipeError(f"{path}: no reward model: its config.json says {_architecture(config)}; train one with tulu rm RECIPE")
    lengths = [length for length in (max_length, longest_document(config)) if length is not None]
    limits = Limits(min(lengths, default=None), row_tokens=row_tokens)
    return _load_classifier(path, config, template, precision, limits, revision, trust_remote_code)


def _load_classifier(
    path: str | Path,
    config: Any,
    template: str,
    precision: str,
    limits: Limits,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Scorer:
    """A scorer on packed rows where they are exact for the architecture, else on padded batches, which the log says."""
    if _is_classifier(config) and config.num_labels != 1:
        raise RecipeError(f"{path}: a classifier with {config.num_labels} labels; a reward model has one")
    if reason := why_not_packed(config, trust_remote_code):
        log.warning("%s is scored in padded batches: %s", path, reason)
        return PlainClassifierScorer(path, template, precision, limits, revision, trust_remote_code)
    origin: Origin = {"revision": revision, "trust_remote_code": trust_remote_code}
    model = RewardModel.load(path, template=template, precision=precision, **origin)
    # The configuration as it was saved says where AutoModelForSequenceClassification reads.
    return ClassifierScorer(model, limits, config.get_text_config().pad_token_id)


def why_not_packed(config: Any, trust_remote_code: bool = False) -> str:
    """Why a classifier of this configuration cannot be scored in packed rows; empty where it can."""
    if config.get_text_config().to_dict().get("attn_logit_softcapping"):
        # Only eager attention caps logits; SDPA leaves the cap out silently (allenai/reward-bench, issue 163).
        return "its attention caps logits"
    try:
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trust_remote_code)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{config.model_type}: no classifier of this architecture ({reason}); try --kind dpo") from error
    head = [dict(child.named_parameters()) for name, child in model.named_children() if name == "score"]
    return "" if head and list(head[0]) == ["weight"] else "its head is no plain `score` layer"


def detect_kind(model: str, options: RewardBenchOptions) -> Kind:
    """The kind of a model: classifier, dpo or judge. Raises RecipeError with the cure where nothing says which."""
    return kind_by_options(model, options) or _kind_of_architecture(model, options.trust_remote_code)


def _kind_of_architecture(model: str, trust_remote_code: bool) -> Kind:
    """`classifier` where config.json says so. A causal model may be a DPO policy or a judge, so the user has to say which."""
    config = from_pretrained(AutoConfig, model, trust_remote_code=trust_remote_code)
    if _is_classifier(config):
        return "classifier"
    raise RecipeError(
        f"{model}: its config.json says {_architecture(config)}, which is no classifier; say what it is: --kind dpo with "
        "--reference MODEL (or --reference-free avg), --kind judge, or --kind classifier"
    )


def _is_classifier(config: Any) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _architecture(config: Any) -> str:
    """The first architecture that a configuration names."""
    return str((config.architectures or ["nothing"])[0])
