"""Direct preference optimisation: raise chosen over rejected, measured against the model it starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tulu.config.job import Job
from tulu.config.schema import Dpo
from tulu.data.lazy import LazySequence
from tulu.evaluation.while_training import answer_looks
from tulu.losses import Loss, dpo_loss, mean_by_owner, simpo_loss, sum_by_owner
from tulu.model.batch import Batch
from tulu.model.policy import Policy
from tulu.train.fit import fit, pack_whole
from tulu.train.held_out import part
from tulu.train.looks import spread
from tulu.train.open import open_stage
from tulu.train.reference import reference_logps
from tulu.types import Group


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """A row of pairs, whose completions come as chosen, rejected, chosen, rejected."""

    reference_logp_C: Tensor
    """Summed log-prob of the completion under the model that the stage starts from."""


@dataclass(frozen=True, slots=True)
class ReferencedPair(Group):
    """A pair with the summed log-probs of its completions under the reference."""

    reference_logps: Sequence[float] = ()


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    run = open_stage(job)
    stage: Dpo = run.section
    if run.finished:
        return run.model_folder

    groups = run.load_groups(run.tokenizer)
    parted = part(run, groups, run.tokenizer)
    policy: Policy = run.load(Policy)
    weights = policy.digest()
    looks, facts = answer_looks(run, policy, run.tokenizer, parted.held_out)
    learner = run.begin(policy, groups, start=weights, **parted.facts, **facts)
    run.settle_rows(learner, lambda batch: policy.logps(batch).sum())
    stage = run.section
    seen: dict[str, Any] = {"looks": looks}
    watched = spread(parted.held_out, stage.eval_rows) if stage.eval_every is not None else []
    if stage.loss == "simpo":
        run.resume()
        seen |= {"held_out": watched}
        fit(learner, run, parted.training, pack_whole, lambda batch: simpo(policy, batch, stage), count_pairs, **seen)
    else:
        # Before the checkpoint is loaded, the policy itself is the reference: no second model is ever needed.
        cache = run.cache / "reference" / f"{weights}-{stage.precision}"
        with run.measuring():
            pairs, held_out = (
                referenced_pairs(rows, reference_logps(rows, policy, stage, run.parallel, cache) if rows else [])
                for rows in (groups, watched)
            )
        run.resume()
        seen |= {"held_out": held_out}
        trained = parted.training_of(pairs)
        fit(learner, run, trained, pack_pairs, lambda batch: dpo(policy, batch, stage), count_pairs, **seen)
    return run.finish(policy.save, rows=len(parted.training))


def referenced_pairs(groups: Sequence[Group], reference: Sequence[Sequence[float]]) -> Sequence[ReferencedPair]:
    """The pairs of a mix with their reference log-probs, which are attached when a step draws them."""
    return LazySequence(len(groups), lambda place: with_reference(groups[place], reference[place]))


def with_reference(pair: Group, logps: Sequence[float]) -> ReferencedPair:
    """A pair with the reference log-probs of its completions."""
    return ReferencedPair(pair.prompt, pair.completions, pair.id, pair.margin, logps)


def pack_pairs(pairs: Sequence[ReferencedPair], stage: Dpo) -> list[PairBatch]:
    """Packed rows of pairs with their reference log-probs."""
    logps = [pair.reference_logps for pair in pairs]
    return [PairBatch(**vars(batch), reference_logp_C=batch.of_completions(logps)) for batch in pack_whole(pairs, stage)]


def count_pairs(batch: Batch) -> float:
    """Normalise by pairs."""
    return batch.n_completions / 2


def dpo(policy: Policy, batch: PairBatch, stage: Dpo) -> Loss:
    """`dpo` on summed log-probs, or `dpo_norm` on their means over each completion's trained tokens."""
    chosen_P, rejected_P = pair_logps(policy, batch, mean=stage.loss == "dpo_norm")
    reference_C = batch.reference_logp_C
    if stage.loss == "dpo_norm":
        reference_C = reference_C / batch.lengths_C.clamp(min=1)
    return dpo_loss(chosen_P, rejected_P, reference_C[0::2], reference_C[1::2], stage.beta, stage.label_smoothing)


def simpo(policy: Policy, batch: Batch, stage: Dpo) -> Loss:
    """SimPO on mean log-probs, without a reference."""
    chosen_P, rejected_P = pair_logps(policy, batch, mean=True)
    return simpo_loss(chosen_P, rejected_P, stage.beta, stage.gamma_beta_ratio, stage.label_smoothing)


def pair_logps(policy: Policy, batch: Batch, mean: bool) -> tuple[Tensor, Tensor]:
    """(P,) log-probs of the chosen and of the rejected completions, summed or averaged over their trained tokens."""
    reduce = mean_by_owner if mean else sum_by_owner
    logps_C = reduce(policy.logps(batch), batch.owner_N, batch.n_completions)
    return logps_C[0::2], logps_C[1::2]
