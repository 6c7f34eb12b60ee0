"""Supervised fine-tuning: raise the log-probs of the assistant's tokens."""

from dataclasses import replace
from pathlib import Path

from tulu.config.load import Job, section_of
from tulu.config.schema import Sft
from tulu.data.chat import template_hash
from tulu.data.datasets import sft_groups
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy, load_tokenizer
from tulu.train.run import Run
from tulu.train.step import Learner, Normaliser, fit, tokens_trained
from tulu.types import Group


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    stage: Sft = section_of(job.recipe, "sft")
    parallel = Parallel(stage)
    run = Run(job, parallel)
    if run.finished:
        return run.path / "model"

    tokenizer = load_tokenizer(run.start, job.recipe.template)
    groups = sft_groups(stage.data, tokenizer, stage.max_length, run.cache, stage.seed)
    groups.report.show()
    policy = Policy.load(
        run.start,
        template=job.recipe.template,
        lora=stage.lora,
        gradient_checkpointing=stage.gradient_checkpointing,
    )
    run.pin(data=groups.digest, start=policy.digest(), template=template_hash(tokenizer))
    learner = Learner(policy, stage, parallel)
    run.resume()

    def objective(batch: Batch) -> Loss:
        weight_N = None if stage.loss == "token" else batch.values["weight"][batch.owner_N]
        return sft_loss(policy.logps(batch), weight_N)

    fit(learner, groups, objective, normaliser(stage), stage, run, prepare=lambda groups: weigh(groups, stage))
    return run.finish(policy.save, rows=len(groups))


def normaliser(stage: Sft) -> Normaliser:
    """What the summed loss is divided by: trained tokens, or the micro-batches of the original."""
    if stage.loss == "token":
        return tokens_trained
    return lambda batch: float(batch.values["share"].sum())


def weigh(groups: list[Group], stage: Sft) -> list[Group]:
    """For `sum` and `micro_mean`, what share of a micro-batch of the original each sequence is, and what its tokens weigh.

    reference: open-instruct finetune.py with --reduce_loss sum and mean @ bb98dbcac^: (1/RA) Σ S and (1/RA) Σ S/M over
    the R·A micro-batches of a step, where S is a micro-batch's summed loss and M its trained tokens.
    """
    if stage.loss == "token":
        return groups
    weighed = []
    for first in range(0, len(groups), stage.loss_micro_batch):
        micro_batch = groups[first : first + stage.loss_micro_batch]
        trained = sum(completion.n_trained for group in micro_batch for completion in group.completions)
        values = {"share": 1.0 / len(micro_batch), "weight": 1.0 if stage.loss == "sum" else 1.0 / trained}
        for group in micro_batch:
            weighed.append(replace(group, completions=tuple(replace(c, values=values) for c in group.completions)))
    return weighed
