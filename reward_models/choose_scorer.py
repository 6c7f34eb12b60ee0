"""Which scorer a model needs: told by --kind, or by what its folder says it is."""

import logging
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from tulu.errors import RecipeError
from tulu.model.load import from_pretrained
from tulu.model.policy import Policy
from tulu.reward_models.benchmarks import Loaded
from tulu.reward_models.encoding import Limits
from tulu.reward_models.model import RewardModel
from tulu.reward_models.plain_scoring import PlainClassifierScorer, needs_plain
from tulu.reward_models.rewardbench import Kind, Options
from tulu.reward_models.scorers import ClassifierScorer, DpoScorer, Scorer

log = logging.getLogger("tulu")


def make_scorer(model: str, loaded: Loaded, options: Options) -> Scorer:
    """The scorer of `model`; RecipeError where options contradict each other or the kind cannot be told."""
    kind = detect(model, options)
    if kind == "judge":
        from tulu.reward_models.judging import make_judge

        return make_judge(model, loaded.data, options)
    config = from_pretrained(AutoConfig, model)
    limits = Limits(_longest(config, options), options.add_bos)
    template = options.template or "tokenizer"
    if kind == "classifier":
        return _classifier(model, config, limits, options)
    policy = Policy.load(model, template=template, precision=options.precision, trainable=False)
    reference = None
    if options.reference is not None:
        # Rewards are compared token by token: both models must read the policy's texts.
        reference = Policy.load(options.reference, template=template, precision=options.precision, trainable=False)
        if reference.tokenizer.get_vocab() != policy.tokenizer.get_vocab():
            raise RecipeError(
                f"--reference {options.reference}: its tokenizer is not the policy's; give the model DPO started from"
            )
    return DpoScorer(policy, reference, options.reference_free or "sum", limits, options.row_tokens)


def _classifier(model: str, config: Any, limits: Limits, options: Options) -> Scorer:
    """Packed rows where they are exact for the architecture, else padded batches, said in the log."""
    template = options.template or "tokenizer"
    if _says_classifier(config) and config.num_labels != 1:
        raise RecipeError(f"{model}: a classifier with {config.num_labels} labels; a reward model has one")
    reason = needs_plain(config)
    if reason:
        log.warning("%s is scored in padded batches: %s", model, reason)
        return PlainClassifierScorer(model, template, options.precision, limits, options.row_tokens)
    classifier = RewardModel.load(model, template=template, precision=options.precision)
    # The configuration as it was saved says where AutoModelForSequenceClassification reads.
    return ClassifierScorer(classifier, limits, options.row_tokens, config.get_text_config().pad_token_id)


def detect(model: str, options: Options) -> Kind:
    """classifier, dpo or judge; RecipeError with the cure where nothing tells which."""
    if options.reference is not None and options.reference_free is not None:
        raise RecipeError("--reference and --reference-free exclude each other; leave one out")
    kind = options.kind
    if kind == "auto" and options.endpoint is not None:
        kind = "judge"
    if kind == "auto" and (options.reference is not None or options.reference_free is not None):
        kind = "dpo"
    if kind == "auto":
        kind = _by_architecture(model)
    if kind == "dpo" and options.reference is None and options.reference_free is None:
        raise RecipeError(
            f"{model}: a DPO policy needs --reference MODEL (what it started from), or --reference-free sum, avg or norm"
        )
    if kind != "dpo" and (options.reference is not None or options.reference_free is not None):
        raise RecipeError(f"--reference and --reference-free belong to --kind dpo, not {kind}")
    if kind != "judge" and options.endpoint is not None:
        raise RecipeError(f"--endpoint belongs to --kind judge, not {kind}")
    return kind


def _by_architecture(model: str) -> Kind:
    if Path(model).exists() and not (Path(model) / "config.json").exists():
        raise RecipeError(f"{model}: no config.json, so no model; give a folder that save_pretrained wrote")
    config = from_pretrained(AutoConfig, model)
    if _says_classifier(config):
        return "classifier"
    name = (config.architectures or ["nothing"])[0]
    raise RecipeError(
        f"{model}: its config.json says {name}, which is no classifier; say what it is: --kind dpo with --reference MODEL "
        "(or --reference-free avg), --kind judge, or --kind classifier"
    )


def _says_classifier(config: Any) -> bool:
    return any(name.endswith("ForSequenceClassification") for name in config.architectures or ())


def _longest(config: Any, options: Options) -> int | None:
    """Most tokens of a text: what is asked for, but no more than the model has positions."""
    positions: int | None = config.get_text_config().to_dict().get("max_position_embeddings")
    if options.max_length is None:
        return positions
    if positions is not None and options.max_length > positions:
        raise RecipeError(f"--max-length {options.max_length}: the model has {positions} positions")
    return options.max_length
