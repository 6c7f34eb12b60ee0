"""Reinforcement learning with verifiable rewards: sample, verify, and raise what was right over what was wrong."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tulu.config.load import Job, section_of, world_size
from tulu.config.schema import Rlvr, Value
from tulu.data.chat import template_hash
from tulu.data.problems import problems
from tulu.errors import EngineError, RecipeError
from tulu.grading.grader import Grader, split_off_reward_model
from tulu.losses import Loss, grpo_loss, kl_estimate, mean_metric, truncated_ratio, value_loss
from tulu.model.batch import Batch, pack
from tulu.model.parallel import Parallel, gathered, unsharded
from tulu.model.policy import Policy, load_tokenizer
from tulu.progress import Progress
from tulu.reward_models.answers import RewardGrader
from tulu.rollout.engine import EngineSpec
from tulu.rollout.engines import choose, make_engine
from tulu.rollout.records import record, summary
from tulu.rollout.sampler import Collected, Sampler
from tulu.stages.ppo import ActorCritic, token_advantages
from tulu.train.run import Run
from tulu.train.step import Learner, Normaliser, completions, learning_rate, step, tokens_trained
from tulu.types import Problem

Reference = Callable[[Batch], Tensor]
"""(N,) log-probs of the starting model."""


@dataclass(frozen=True)
class Models:
    """Everyone who is asked about a batch."""

    policy: Policy
    critic: ActorCritic | None
    """Policy and value model, where the recipe is PPO."""
    reference: Reference | None
    """None where β is 0."""


MISMATCH_LIMIT = 0.5
"""Mean |log-prob of the learner - of the sampler| in nats beyond which the weights cannot be the same."""


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    stage: Rlvr = section_of(job.recipe, "rlvr")
    if stage.zero == 3 and world_size() > 1 and choose(stage.engine) == "transformers":
        cure = "set engine to vllm, or zero to 2 or less"
        raise RecipeError(f"rlvr.zero: 3: the transformers engine samples from whole weights; {cure}")
    parallel = Parallel(stage)
    run = Run(job, parallel)
    if run.finished:
        return run.path / "model"

    tokenizer = load_tokenizer(run.start, job.recipe.template)
    judged = stage.reward_model is not None
    asked = problems(stage.data, tokenizer, stage.max_prompt, stage.verifier, stage.seed, judged)
    asked.report.show()
    judge = load_judge(stage, asked, job.folder.parent)
    policy = Policy.load(
        run.start,
        template=job.recipe.template,
        lora=stage.lora,
        gradient_checkpointing=stage.gradient_checkpointing,
    )
    critic = ActorCritic.load(policy, stage, job.recipe.template, job.folder.parent / "rm" / "model", run.start)
    facts = {"reward_model": judge.digest} if judge else {}
    facts |= {"value": critic.value.digest()} if critic else {}
    run.pin(data=asked.digest, start=policy.digest(), template=template_hash(tokenizer), **facts)
    models = Models(policy, critic, starting_point(policy, run.start, stage, job.recipe.template))
    learner = Learner(critic or policy, stage, parallel)
    state = run.resume()

    spec = EngineSpec(run.start, stage.max_prompt + stage.max_tokens, stage.precision)
    engine = make_engine(stage.engine, spec, policy)
    try:
        engine.sync(policy.weights(), run.step)
        with Grader() as grader:
            sampler = Sampler(engine, grader, policy.tokenizer, asked, stage, parallel, judge)
            train(learner, models, sampler, stage, run, state.get("drawn", 0))
    finally:
        engine.close()
    return run.finish(policy.save, problems=len(asked))


def load_judge(stage: Rlvr, asked: Sequence[Problem], runs: Path) -> RewardGrader | None:
    """The recipe's reward model, whole in every process. RecipeError where no row would ask it, or there is none."""
    if stage.reward_model is None:
        return None
    if stage.reward_model.rows == "named" and all(split_off_reward_model(problem)[1] is None for problem in asked):
        raise RecipeError("rlvr.reward_model.rows: named, and no row's verifiers name reward_model; set it to all, or name it")
    with unsharded():
        return RewardGrader.load(stage.reward_model, runs / "rm" / "model")


def starting_point(policy: Policy, start: str, stage: Rlvr, template: str) -> Reference | None:
    """What answers for the starting model's log-probs: frozen weights, or the policy without its adapters; None if β is 0."""
    if not stage.beta:
        return None
    frozen = policy if stage.lora else Policy.load(start, template=template, precision=stage.precision, trainable=False)
    # Under ZeRO-3 frozen weights are sharded as they load, with no engine around them to gather them.
    start_weights: Callable[[], AbstractContextManager[Any]]
    start_weights = policy.without_adapter if stage.lora else partial(gathered, frozen.model)

    @torch.no_grad()
    def logps(batch: Batch) -> Tensor:
        with start_weights():
            found: Tensor = frozen.logps(batch, stage.temperature)
        return found

    return logps


def train(learner: Learner, models: Models, sampler: Sampler, stage: Rlvr, run: Run, drawn: int) -> None:
    """Synchronous GRPO, or with a critic PPO: every step samples with the weights that the step before left."""
    parallel, policy = learner.parallel, models.policy
    total = stage.steps or max(1, math.ceil(len(sampler.problems) * (stage.epochs or 1.0) / stage.prompts))
    with run.interruptible(), Progress("rlvr", total, run.step, parallel.is_main) as progress:
        for index in range(run.step, total):
            began = time.monotonic()
            rate = learning_rate(stage, index, total)
            learner.set_learning_rate(rate)
            rollouts = sampler.collect(drawn)
            sampled = time.monotonic()
            run.journal("graded", step=index + 1, first=drawn, rows=[rollout.problem.id for rollout in rollouts.seen])
            metrics = learn(learner, models, rollouts, stage, index)
            sampler.engine.sync(policy.weights(), index + 1)

            drawn, run.step = rollouts.drawn, index + 1
            tokens = parallel.total(sum(rollout.group.n_tokens for rollout in rollouts.seen))
            seconds = time.monotonic() - began
            metrics |= summary(rollouts, parallel)
            timing = {"tokens": tokens, "seconds": seconds, "sampling_seconds": sampled - began}
            run.log(run.step, {**metrics, "learning_rate": rate, **timing})
            run.rollouts(run.step, [row for part in parallel.exchange(record(rollouts, policy.tokenizer)) for row in part])
            run.journal("trained", step=run.step, rows=[rollout.problem.id for rollout in rollouts.kept])
            progress.update(run.step, metrics, tokens / seconds)
            if run.due(run.step, run.step == total):
                run.save(run.step, drawn=drawn)
            run.stop_if_interrupted(run.step, drawn=drawn)


def learn(learner: Learner, models: Models, rollouts: Collected, stage: Rlvr, index: int) -> dict[str, float]:
    """The optimizer steps of one step's rollouts; the metrics of the last one. Raises EngineError on a mismatch of weights."""
    parallel = learner.parallel
    groups = [rollout.trained(stage.mask_truncated) for rollout in rollouts.kept]
    spare = spare_row(rollouts, stage)
    parts = [
        carry(models, rows(groups[part :: stage.minibatches], stage), spare, stage, parallel) for part in range(stage.minibatches)
    ]
    if stage.value is not None:
        parts = token_advantages(parts, stage, stage.value, parallel)

    def objective(batch: Batch) -> Loss:
        if models.critic is None or stage.value is None:
            logps_N, entropy_N = models.policy.logps_and_entropy(batch, stage.temperature)
            return policy_loss(logps_N, entropy_N, batch, stage)
        logps_N, entropy_N, values_N = models.critic(batch, stage.temperature)
        policy = policy_loss(logps_N, entropy_N, batch, stage)
        return critic_loss(policy, values_N, batch, stage, alone=index < stage.value.warmup)

    metrics: dict[str, float] = {}
    for _ in range(stage.updates):
        for part in parts:
            if parallel.largest(len(part)):
                metrics = step(learner, part, objective, normaliser(stage), spare)
    if metrics.get("mismatch", 0.0) > MISMATCH_LIMIT:
        raise EngineError(
            f"learner and engine disagree by {metrics['mismatch']:.2f} nats a token: they do not hold the same weights\n"
            "The checkpoint before is intact. Run the same command again; if it recurs, compare precision and template."
        )
    return metrics


def rows(groups: Sequence[Any], stage: Rlvr) -> list[Batch]:
    """Packed rows of the groups that have something to train."""
    return pack([group for group in groups if group.completions], stage.row_tokens, stage.micro_batch)


def spare_row(rollouts: Collected, stage: Rlvr) -> Batch | None:
    """A row for a process that has fewer than the others, trained at weight 0."""
    if not rollouts.seen:
        return None
    first = replace(rollouts.seen[0], advantages=(0.0,) * stage.samples)
    return rows([first.trained(mask_truncated=False)], stage)[0]


@torch.no_grad()
def carry(models: Models, part: list[Batch], spare: Batch | None, stage: Rlvr, parallel: Parallel) -> list[Batch]:
    """The rows with what must not move while they are trained: the policy's own log-probs before several updates (after
    a single one the ratio is 1 by definition), the reference's, and the values of the critic."""
    several = stage.minibatches * stage.updates > 1
    if not several and models.reference is None and models.critic is None:
        return part
    carried = []
    for index in range(parallel.largest(len(part))):
        batch = part[index] if index < len(part) else spare
        if batch is None:
            raise ValueError("a process without a row of its own needs a spare one")
        values = dict(batch.token_values)
        if models.critic is not None:
            values["old"], _, values["value"] = models.critic(batch, stage.temperature)
        elif several:
            values["old"] = models.policy.logps(batch, stage.temperature)
        if models.reference is not None:
            values["reference"] = models.reference(batch)
        device = models.policy.device
        carried.append(replace(batch.to(device), token_values={k: v.to(device) for k, v in values.items()}))
    return carried[: len(part)]


def policy_loss(logps_N: Tensor, entropy_N: Tensor, batch: Batch, stage: Rlvr) -> Loss:
    """The recipe's policy loss over a batch that carries advantages, of completions or of tokens, and the sampler's log-probs."""
    old_N = batch.token_values.get("old", logps_N.detach())
    sampler_N = batch.token_values["sampler"]
    correction_N = truncated_ratio(old_N, sampler_N, stage.ratio_cap) if stage.ratio_cap else None

    def kl(ratio_N: Tensor) -> Tensor:
        return kl_estimate(logps_N, batch.token_values["reference"], stage.kl, ratio_N)

    loss, metrics = grpo_loss(
        logps_N,
        old_N,
        batch.token_values.get("advantage", batch.values["advantage"][batch.owner_N]),
        clip_low=stage.clip_low,
        clip_high=stage.clip_high,
        weight_N=share(batch, stage),
        correction_N=correction_N,
        kl_N=kl if "reference" in batch.token_values else None,
        beta=stage.beta,
    )
    metrics |= {"entropy": mean_metric(entropy_N), "mismatch": mean_metric((old_N - sampler_N).abs())}
    if "kl" in batch.token_values:  # taken off the rewards, not added to the loss
        metrics["kl"] = mean_metric(batch.token_values["kl"])
    return loss, metrics


def critic_loss(policy: Loss, values_N: Tensor, batch: Batch, stage: Rlvr, alone: bool = False) -> Loss:
    """The policy's loss, unless the value model learns alone, and, weighed by the recipe, the value model's."""
    value = stage.value or Value()
    # A spare row has neither: it is trained at weight 0.
    old_N, returns_N = (batch.token_values.get(name, values_N.detach()) for name in ("value", "returns"))
    loss, metrics = value_loss(values_N, old_N, returns_N, value.clip, share(batch, stage))
    return (0.0 if alone else 1.0) * policy[0] + value.coefficient * loss, {**policy[1], **metrics}


def share(batch: Batch, stage: Rlvr) -> Tensor | None:
    """(N,) what a token counts in its sequence; None where all count alike."""
    return 1 / batch.lengths_C[batch.owner_N] if stage.denominator == "sequence" else None


def normaliser(stage: Rlvr) -> Normaliser:
    """What the summed loss is divided by: trained tokens, completions, or completions × max_tokens."""
    if stage.denominator == "constant":
        return lambda batch: float(batch.n_completions * stage.max_tokens)
    return tokens_trained if stage.denominator == "token" else completions
