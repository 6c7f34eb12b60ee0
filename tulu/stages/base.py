"""A model made from scratch: next-token training on plain text, so that a recipe can begin with nothing."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tulu.config.job import Job
from tulu.config.schema import Base
from tulu.data.chat import make_byte_tokenizer
from tulu.errors import RecipeError
from tulu.evaluation.while_training import answer_looks
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch
from tulu.model.dropout import start_training
from tulu.model.fidelity import check_reload
from tulu.model.policy import Policy
from tulu.model.positions import check_length
from tulu.model.published import published_shapes
from tulu.model.recompute import enable_recompute
from tulu.train.fit import fit, pack_whole
from tulu.train.held_out import part
from tulu.train.open import open_stage
from tulu.train.step import count_tokens


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    run = open_stage(job)
    stage: Base = run.section
    if run.finished:
        return run.model_folder

    policy = new_policy(stage)
    groups = run.load_groups(policy.tokenizer)
    parted = part(run, groups, policy.tokenizer)
    looks, facts = answer_looks(run, policy, policy.tokenizer, parted.held_out)
    run.save_model = policy.save
    learner = run.begin(policy, groups, start=policy.digest(), **parted.facts, **facts)
    run.settle_rows(learner, lambda batch: policy.logps(batch).sum())
    run.resume()

    def objective(batch: Batch) -> Loss:
        return sft_loss(policy.logps(batch))

    fit(learner, run, parted.training, pack_whole, objective, count_tokens, held_out=parted.held_out, looks=looks)
    return run.finish(policy.save, rows=len(parted.training))


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
    check_length(stage.max_length, "base.max_length", config, "base.config")
    with torch.random.fork_rng():
        torch.manual_seed(stage.seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    check_reload(model, published_shapes(model))
    enable_recompute(model, stage.gradient_checkpointing)
    policy = Policy(model, tokenizer)
    start_training(policy.module)
    return policy
