"""Reinforcement learning with verifiable rewards: sample, verify, and raise what was right over what was wrong.

    tulu rlvr recipes/olmo2-instruct.yaml       the RLVR stage of a recipe
    tulu rlvr --verifier math                   the quickstart's, with this verifier

This is GRPO over groups of sampled completions, or with a value model PPO (stages/ppo.py). It is synchronous: every step
samples with the weights that the step before left, trains on all of what it sampled, and sends the new weights to the
engine. It leaves out what does not belong to the update: engines sample (rollout/), verifiers and the reward model grade
(grading/), and `step` divides, clips and updates (train/step.py).
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tulu.config.job import Job
from tulu.config.schema import Rlvr, ValueModelSettings
from tulu.data.problems import load_problems
from tulu.errors import EngineError, RecipeError
from tulu.grading.grader import Grader, split_off_reward_model
from tulu.losses import Loss, grpo_loss, kl_estimate, mean_metric, truncated_ratio
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating
from tulu.model.gathering import gathered, unsharded
from tulu.model.generation import turn_end_tokens
from tulu.model.load import Origin
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.reward_models.grader import RewardGrader
from tulu.rollout.batches import RolloutBatch, SampledBatch, pack_rollouts
from tulu.rollout.engine import EngineSpec
from tulu.rollout.engines import make_engine
from tulu.rollout.records import record, summary
from tulu.rollout.sampler import Sampler, StepRollouts
from tulu.stages.denominator import normaliser, token_weights, value_weights, weigh
from tulu.stages.ppo import ActorCritic, PpoBatch, ppo_loss, spare_ppo_batch, token_advantages
from tulu.train.open import StageRun, open_stage
from tulu.train.optimizer import Learner, learning_rate
from tulu.train.run import Run
from tulu.train.step import Objective, step
from tulu.types import Problem

log = logging.getLogger("tulu")

KlReference = Callable[[Batch], Tensor]
"""A batch to the (N,) log-probs of its trained tokens under the model that the stage starts from."""

MISMATCH_LIMIT = 0.5
"""Mean |log-prob of the learner - of the sampler| in nats beyond which the weights cannot be the same."""


@dataclass(frozen=True)
class Models:
    """The models that a step asks about a batch."""

    policy: Policy
    critic: ActorCritic | None
    """Policy and value model, where the recipe is PPO."""
    kl_reference: KlReference | None
    """None where β is 0."""


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    run = open_stage(job)
    stage: Rlvr = run.section
    if run.finished:
        return run.model_folder

    with_reward_model = stage.reward_model is not None
    problems = load_problems(
        stage.data,
        run.tokenizer,
        stage.max_prompt,
        stage.verifier,
        stage.seed,
        with_reward_model,
        stage.bad_golds,
        stage.verifier_mode,
    )
    problems.report.show()
    log.info(problems.report.golds())
    runs = job.folder.parent
    reward_model = load_reward_model(stage, problems, runs, job.recipe.trust_remote_code)
    policy: Policy = run.load(Policy)
    critic = ActorCritic.load(policy, stage, job.template[0], runs / "rm" / "model", run.start, run.start_options)
    facts = {"reward_model": reward_model.digest} if reward_model else {}
    facts |= {"value": critic.value.digest()} if critic else {}
    kl_reference = load_kl_reference(policy, run, stage, job.template[0], run.start_options)
    learner = run.begin(critic or policy, data=problems.digest, start=policy.digest(), **facts)
    run.settle_rows(learner, partial(all_numbers, policy, critic))
    stage = run.section
    state = run.resume()

    spec = EngineSpec(
        run.start,
        stage.max_prompt + stage.max_tokens,
        stage.precision,
        revision=job.revision,
        trust_remote_code=job.recipe.trust_remote_code,
        turn_ends=turn_end_tokens(policy.tokenizer),
    )
    with closing(make_engine(stage.engine, spec, policy)) as engine, Grader(mode=stage.verifier_mode) as grader:
        engine.sync(policy.weights(), run.step)
        sampler = Sampler(engine, grader, policy.tokenizer, problems, stage, run.parallel, reward_model)
        train(learner, Models(policy, critic, kl_reference), sampler, stage, run, state.get("drawn", 0))
    return run.finish(policy.save, problems=len(problems))


def all_numbers(policy: Policy, critic: ActorCritic | None, batch: Batch) -> Tensor:
    """A number that depends on all weights that are trained."""
    numbers = policy.logps_and_entropy(batch) if critic is None else critic(batch, 1.0)
    return torch.stack([part.sum() for part in numbers]).sum()


def train(learner: Learner, models: Models, sampler: Sampler, stage: Rlvr, run: Run, drawn: int) -> None:
    """Every step samples with the weights that the step before left; `drawn` problems were drawn before."""
    parallel, policy = learner.parallel, models.policy
    total = stage.steps or max(1, math.ceil(len(sampler.problems) * (stage.epochs or 1.0) / stage.prompts))
    with run.interruptible(), Progress(run.job.stage, total, run.step, parallel.is_main) as progress:
        for index in range(run.step, total):
            began = time.monotonic()
            rates = update_rates(stage, index, total)
            rollouts = sampler.collect(drawn)
            sampled = time.monotonic()
            run.journal("graded", step=index + 1, first=drawn, rows=[rollout.problem.id for rollout in rollouts.sampled])
            metrics = update(learner, models, rollouts, stage, index, rates)
            updated = time.monotonic()
            sampler.engine.sync(policy.weights(), index + 1)

            drawn, run.step = rollouts.drawn, index + 1
            tokens = parallel.total(sum(rollout.group.n_tokens for rollout in rollouts.sampled))
            seconds = time.monotonic() - began
            metrics |= summary(rollouts, parallel)
            measured = learner.meter.read(seconds, updated - sampled)
            timing = {
                "tokens": tokens,
                "seconds": seconds,
                "sampling_seconds": sampled - began,
                "tokens_per_second": tokens / seconds,
            }
            run.log(run.step, {**metrics, "learning_rate": rates[0], **timing, **measured})
            run.rollouts(run.step, [row for part in parallel.exchange(record(rollouts, policy.tokenizer)) for row in part])
            run.journal("trained", step=run.step, rows=[rollout.problem.id for rollout in rollouts.trained])
            progress.update(run.step, metrics, tokens / seconds, measured["mfu"])
            run.end_step(run.step == total, drawn=drawn)


def update_rates(stage: Rlvr, index: int, total: int) -> list[float]:
    """The learning rate of each update of step `index` of `total`."""
    each = stage.minibatches * stage.updates
    if stage.rate_by == "step":
        return [learning_rate(stage, index, total)] * each
    return [learning_rate(stage, index * each + update, total * each) for update in range(each)]


def update(
    learner: Learner, models: Models, rollouts: StepRollouts, stage: Rlvr, index: int, rates: Sequence[float]
) -> dict[str, float]:
    """The optimizer steps on one step's rollouts; the metrics of the last one. Raises EngineError on a mismatch of weights."""
    parallel = learner.parallel
    trained = [rollout.to_train(stage.mask_truncated) for rollout in rollouts.trained]
    spare = spare_batch(rollouts, stage)
    with evaluating(learner.model.module):
        parts = [pack_rollouts(trained[part :: stage.minibatches], stage) for part in range(stage.minibatches)]
        minibatches: list[Sequence[RolloutBatch]] = [fix(models, part, spare, stage, parallel) for part in parts]

    objective: Objective[Any] = partial(grpo, models.policy, stage)
    if models.critic is not None and stage.value is not None:
        objective = partial(ppo, models.critic, stage, stage.value, index)
        minibatches = [*token_advantages(minibatches, stage, stage.value, parallel)]
        spare = spare and spare_ppo_batch(spare)

    first: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for number, rate in enumerate(rates):
        place = number % stage.minibatches
        # A mini-batch is passed over where no process has a row of it.
        if not parallel.largest(len(minibatches[place])):
            continue
        if number < stage.minibatches and stage.old == "minibatch" and ratio_moves(stage):
            minibatches[place] = remember(learner, models.policy, minibatches[place], spare, stage)
        learner.set_learning_rate(rate)
        rows = weigh(minibatches[place], stage, parallel, index * len(rates) + number)
        metrics = step(learner, rows, objective, normaliser(stage), spare)
        first = first or metrics
    # Before the first update learner and engine hold the same weights. A mismatch that is not a number is none that is small.
    metrics |= {"mismatch": first["mismatch"]} if first else {}
    if not metrics.get("mismatch", 0.0) <= MISMATCH_LIMIT:
        raise EngineError(
            f"learner and engine disagree by {metrics['mismatch']:.2f} nats a token: they do not hold the same weights\n"
            "The checkpoint before is intact. Run the same command again; if it recurs, compare precision and template."
        )
    return metrics


def spare_batch(rollouts: StepRollouts, stage: Rlvr) -> RolloutBatch | None:
    """A row for a process that has fewer rows than the others, which trains on it at weight 0; None if it sampled nothing."""
    if not rollouts.sampled:
        return None
    first = replace(rollouts.sampled[0], advantages=(0.0,) * stage.samples)
    return RolloutBatch(**vars(pack_rollouts([first], stage)[0]))


def fix(
    models: Models, rows: Sequence[SampledBatch], spare: SampledBatch | None, stage: Rlvr, parallel: Parallel
) -> Sequence[RolloutBatch]:
    """The rows with what must not move while they are trained on, all without dropout.

    That is the policy's log-probs before the updates, those of the KL reference, and the values of the value model. In a
    single update the ratio to the log-probs before is 1 by definition, unless adapters drop out.
    """
    fixed = []
    for row, is_own in parallel.level(rows, spare):
        row = row.to(models.policy.device)
        before: dict[str, Tensor] = {}
        if models.critic is not None:
            before["old_logps_N"], _, values_M = models.critic(row, stage.temperature)
            before["old_values_N"] = values_M[: row.n_trained]
            if models.critic.ends:
                before["old_end_C"] = values_M[row.n_trained :]
        elif stage.old == "step" and ratio_moves(stage):
            before["old_logps_N"] = models.policy.logps(row, stage.temperature)
        if models.kl_reference is not None:
            before["kl_reference_N"] = models.kl_reference(row)
        if is_own:
            fixed.append(RolloutBatch(**{**vars(row), **before}))
    return fixed


def ratio_moves(stage: Rlvr) -> bool:
    """Whether the ratio to the log-probs before can be another than 1 when a mini-batch is trained."""
    moved_before = stage.updates > 1 or (stage.old == "step" and stage.minibatches > 1)
    return moved_before or (stage.lora is not None and stage.lora.dropout > 0)


def remember(
    learner: Learner, policy: Policy, rows: Sequence[RolloutBatch], spare: RolloutBatch | None, stage: Rlvr
) -> Sequence[RolloutBatch]:
    """The rows of a mini-batch with the log-probs under the policy as it is now, before it is first trained on them."""
    with evaluating(learner.model.module):
        now = [(row, policy.logps(row, stage.temperature), own) for row, own in learner.parallel.level(rows, spare)]
    return [replace(row, old_logps_N=logps_N) for row, logps_N, own in now if own]


def grpo(policy: Policy, stage: Rlvr, batch: RolloutBatch) -> Loss:
    """The policy's loss, every token with the advantage of its completion."""
    logps_N, entropy_N = policy.logps_and_entropy(batch, stage.temperature)
    return policy_loss(logps_N, entropy_N, batch, batch.advantage_C[batch.owner_N], stage)


def ppo(critic: ActorCritic, stage: Rlvr, value: ValueModelSettings, index: int, batch: PpoBatch) -> Loss:
    """The policy's loss, every token with its own advantage, and the value model's, which learns alone in its warm-up."""
    logps_N, entropy_N, values_M = critic(batch, stage.temperature)
    policy = policy_loss(logps_N, entropy_N, batch, batch.advantage_N, stage)
    return ppo_loss(policy, values_M, batch, stage, value, value_weights(batch, stage), value_alone=index < value.warmup)


def policy_loss(logps_N: Tensor, entropy_N: Tensor, batch: RolloutBatch, advantage_N: Tensor, stage: Rlvr) -> Loss:
    """The recipe's policy loss over a batch."""
    old_N = logps_N.detach() if batch.old_logps_N is None else batch.old_logps_N
    reference_N = batch.kl_reference_N
    weight_C = token_weights(batch, stage)
    loss, metrics = grpo_loss(
        logps_N,
        old_N,
        advantage_N,
        clip_low=stage.clip_low,
        clip_high=stage.clip_high,
        weight_N=None if weight_C is None else weight_C[batch.owner_N],
        correction_N=truncated_ratio(old_N, batch.sampler_logps_N, stage.ratio_cap) if stage.ratio_cap else None,
        kl_N=None if reference_N is None else partial(kl_estimate, logps_N, reference_N, stage.kl),
        beta=stage.beta,
    )
    mismatch_N = (old_N - batch.sampler_logps_N).abs()
    return loss, {**metrics, "entropy": mean_metric(entropy_N), "mismatch": mean_metric(mismatch_N)}


def load_reward_model(
    stage: Rlvr, problems: Sequence[Problem], runs: Path, trust_remote_code: bool = False
) -> RewardGrader | None:
    """The recipe's reward model, whole in every process. RecipeError where no row would ask it, or there is none."""
    if stage.reward_model is None:
        return None
    if stage.reward_model.rows == "named" and all(split_off_reward_model(problem)[1] is None for problem in problems):
        raise RecipeError("rlvr.reward_model.rows: named, and no row's verifiers name reward_model; set it to all, or name it")
    with unsharded():
        return RewardGrader.load(stage.reward_model, runs / "rm" / "model", trust_remote_code)


def load_kl_reference(
    policy: Policy, run: StageRun, stage: Rlvr, template: str, options: Origin | None = None
) -> KlReference | None:
    """Log-probs under the starting model: of frozen weights, or of the policy without its adapters; None if β is 0."""
    if not stage.beta:
        return None
    start_weights: Callable[[], AbstractContextManager[Any]]
    if stage.lora:
        frozen, start_weights = policy, policy.without_adapter
    else:
        frozen = Policy.load(run.start, template=template, precision=stage.precision, trainable=False, **(options or Origin()))
        run.parallel.prepare_frozen(frozen.module)
        # Under ZeRO-3 frozen weights are sharded as they load, with no engine around them to gather them.
        start_weights = partial(gathered, frozen.module)

    @torch.no_grad()
    def logps(batch: Batch) -> Tensor:
        with start_weights():
            return frozen.logps(batch, stage.temperature)

    return logps
