"""A model made from scratch: next-token training on plain text, so that a recipe can begin with nothing."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.config.load import Job, section_of
from tulu.config.schema import Base
from tulu.data.chat import make_byte_tokenizer
from tulu.data.datasets import text_groups
from tulu.errors import RecipeError
from tulu.losses import sft_loss
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.train.run import Run
from tulu.train.step import Learner, fit, tokens_trained


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    stage: Base = section_of(job.recipe, "base")
    parallel = Parallel(stage)
    run = Run(job, parallel)
    if run.finished:
        return run.path / "model"

    policy = new_policy(stage)
    groups = text_groups(stage.data, policy.tokenizer, stage.max_length, run.cache, stage.seed)
    groups.report.show()
    run.pin(data=groups.digest, start=policy.digest())
    learner = Learner(policy, stage, parallel)
    run.resume()

    fit(learner, groups, lambda batch: sft_loss(policy.logps(batch)), tokens_trained, stage, run)
    return run.finish(policy.save, rows=len(groups))


def new_policy(stage: Base) -> Policy:
    """A model with random weights from the recipe's configuration, seeded. Raises RecipeError if it is not one."""
    tokenizer = make_byte_tokenizer()
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    fields = {**stage.config, **special, "vocab_size": len(tokenizer)}
    kind = fields.pop("model_type", None)
    try:
        config = AutoConfig.for_model(kind, **fields)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"base.config: {error}") from error
    with torch.random.fork_rng():
        torch.manual_seed(stage.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    policy = Policy(model, tokenizer)
    policy.module.train()
    return policy
