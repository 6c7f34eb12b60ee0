"""Direct preference optimisation: raise chosen over rejected, measured against the model it starts from."""

from pathlib import Path

from tulu.config.load import Job, section_of
from tulu.config.schema import Dpo
from tulu.data.chat import template_hash
from tulu.data.datasets import pair_groups
from tulu.losses import Loss, dpo_loss, simpo_loss
from tulu.model.batch import Batch, mean_by_owner, sum_by_owner
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy, load_tokenizer
from tulu.train.reference import with_reference
from tulu.train.run import Run
from tulu.train.step import Learner, fit, pairs


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    stage: Dpo = section_of(job.recipe, "dpo")
    parallel = Parallel(stage)
    run = Run(job, parallel)
    if run.finished:
        return run.path / "model"

    tokenizer = load_tokenizer(run.start, job.recipe.template)
    groups = pair_groups(stage.data, tokenizer, stage.max_length, run.cache, drop_long=False, seed=stage.seed)
    groups.report.show()
    policy = Policy.load(
        run.start,
        template=job.recipe.template,
        lora=stage.lora,
        gradient_checkpointing=stage.gradient_checkpointing,
    )
    weights = policy.digest()
    run.pin(data=groups.digest, start=weights, template=template_hash(tokenizer))
    learner = Learner(policy, stage, parallel)
    # Before the checkpoint is loaded, the policy itself is the reference: no second model is ever needed.
    cache = run.cache / "reference" / f"{weights}-{stage.precision}"
    rows = list(groups) if stage.loss == "simpo" else with_reference(groups, policy, stage, parallel, cache)
    run.resume()

    fit(learner, rows, lambda batch: pair_loss(policy, batch, stage), pairs, stage, run)
    return run.finish(policy.save, rows=len(rows))


def pair_loss(policy: Policy, batch: Batch, stage: Dpo) -> Loss:
    """The recipe's preference loss over the pairs of a batch, whose completions come as chosen, rejected, chosen, …"""
    reduce = sum_by_owner if stage.loss == "dpo" else mean_by_owner
    logps_C = reduce(policy.logps(batch), batch.owner_N, batch.n_completions)
    chosen_P, rejected_P = logps_C[0::2], logps_C[1::2]
    if stage.loss == "simpo":
        return simpo_loss(chosen_P, rejected_P, stage.beta, stage.gamma_beta_ratio, stage.label_smoothing)
    reference_C = batch.values["reference"]
    if stage.loss == "dpo_norm":
        reference_C = reference_C / batch.lengths_C.clamp(min=1)
    return dpo_loss(chosen_P, rejected_P, reference_C[0::2], reference_C[1::2], stage.beta, stage.label_smoothing)
