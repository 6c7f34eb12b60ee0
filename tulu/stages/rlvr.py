"""Reinforcement learning with verifiable rewards: sample, verify, and raise what was right over what was wrong.

    tulu rlvr recipes/olmo2-instruct.yaml       the RLVR stage of a recipe
    tulu rlvr --verifier math                   the quickstart's, with this verifier

This is GRPO over groups of sampled completions, or with a value model PPO (stages/ppo.py). Every step trains on what the
stream of rollouts (rollout/stream.py) has ready, and gives the engines its new weights. With `max_staleness: 0` the stream
samples with the weights that the step before left, and the step trains on all of it; with a larger one it runs ahead. What
does not belong to the update stands elsewhere: engines sample (rollout/), verifiers and the reward model grade (grading/), and
`step` divides, clips and updates (train/step.py).
"""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tulu.config.job import Job
from tulu.config.schema import Rlvr
from tulu.model.batch import Batch
from tulu.model.dropout import evaluating
from tulu.model.generation import turn_end_tokens
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.progress import Progress
from tulu.rollout.acting import Acting
from tulu.rollout.batches import RolloutBatch, SampledBatch, pack_rollouts
from tulu.rollout.draws import Queue
from tulu.rollout.engine import EngineSpec
from tulu.rollout.fleets import fleet_of, sent_adapters, sent_weights
from tulu.rollout.graders import grader_of
from tulu.rollout.journal import StreamLog
from tulu.rollout.mismatch import check_weights
from tulu.rollout.records import keep_tokenizer, record
from tulu.rollout.sampler import Rollout, RolloutGrader, StepRollouts
from tulu.rollout.status import FILE as STATUS_FILE
from tulu.rollout.status import Status
from tulu.rollout.stream import Stream
from tulu.rollout.team import Team
from tulu.rollout.token_notes import TokenNotes
from tulu.stages.denominator import normaliser, weigh
from tulu.stages.frozen import TokenLogps, load_kl_reference, load_reward_model, load_teacher
from tulu.stages.kl_in_reward import compare_less_kl
from tulu.stages.policy_loss import grpo, ppo, ratio_moves
from tulu.stages.ppo import ActorCritic, spare_ppo_batch, token_advantages
from tulu.stages.rlvr_looks import looks_of, read_asked
from tulu.stages.rlvr_problems import read_problems, rows_facts, settings_of
from tulu.train.agreement import start_digest
from tulu.train.looks import Looks
from tulu.train.open import StageRun, open_stage
from tulu.train.optimizer import Learner, learning_rate
from tulu.train.run import Run
from tulu.train.step import Objective, step

log = logging.getLogger("tulu")


@dataclass(frozen=True)
class Models:
    """The models that a step asks about a batch."""

    policy: Policy
    critic: ActorCritic | None
    """Policy and value model, where the recipe is PPO."""
    kl_reference: TokenLogps | None
    """The model that the stage starts from; None where β is 0."""
    teacher: TokenLogps | None = None
    """The model that the policy is distilled from, where the recipe has one."""


def run(job: Job) -> Path:
    """Train, and return the folder of the model."""
    run = open_stage(job)
    if run.finished:
        return run.model_folder
    with Status(run.path / STATUS_FILE if run.parallel.is_main else None) as status:
        return run_stage(job, run, status)


def run_stage(job: Job, run: StageRun, status: Status) -> Path:
    """The same, of a stage that is open; `status` says from here on what it does and waits for."""
    stage: Rlvr = run.section
    acting = Acting(stage.env, run.tokenizer, status, stage.verifier) if stage.env is not None and stage.env.acts else None
    status.say(state="starting: reading the problems")
    with status.waiting("the problems to be read and their ground truths to be proven"):
        problems = read_problems(run, stage, acting)
        problems.report.show()
        if acting is None or not acting.scores:
            log.info(problems.report.golds())
        asked, asked_facts = read_asked(run, problems, acting)
    if run.parallel.is_main:
        keep_tokenizer(run.path / "rollouts", run.tokenizer)
    runs = job.folder.parent
    status.say(state="starting: loading the models")
    with status.waiting("the models to be loaded"):
        reward_model = load_reward_model(stage, problems, runs, job.recipe.trust_remote_code)
        policy: Policy = run.load(Policy)
        critic = ActorCritic.load(policy, stage, job.template[0], runs / "rm" / "model", run.start, run.start_options)
        facts = {"reward_model": reward_model.digest} if reward_model else {}
        facts |= rows_facts(problems, stage)
        facts |= asked_facts | ({"env": acting.digest()} if acting else {})
        facts |= {"value": critic.value.digest()} if critic else {}
        if stage.teacher is not None:
            facts["teacher"] = start_digest(stage.teacher.path, stage.teacher.revision)
        kl_reference = load_kl_reference(policy, run, stage, job.template[0], run.start_options)
        teacher = load_teacher(policy, run.parallel, stage, job.recipe.trust_remote_code)
    learner = run.begin(critic or policy, problems, start=policy.digest(), **facts)
    run.settle_rows(learner, partial(all_numbers, policy, critic, stage.entropy_bonus > 0))
    stage = run.section
    state = run.resume()

    spec = EngineSpec(
        run.start,
        stage.max_prompt + stage.max_tokens,
        stage.precision,
        revision=job.revision,
        trust_remote_code=job.recipe.trust_remote_code,
        turn_ends=turn_end_tokens(policy.tokenizer),
        adapters=sent_adapters(policy, stage),
    )
    total = stage.steps or max(1, math.ceil(len(problems) * (stage.epochs or 1.0) / stage.prompts))
    models = Models(policy, critic, kl_reference, teacher)
    with ExitStack() as stack:
        grader = stack.enter_context(grader_of(stage, spec, settings_of(stage), run.parallel.is_main))
        team = Team(run.parallel)
        with status.waiting("the engines to start"):
            fleet = fleet_of(stage, spec, policy, team)
        if fleet is not None:
            if acting is not None and run.parallel.is_main:
                fleet = acting.fleet(fleet, [*problems, *asked])
            stack.enter_context(closing(fleet))
        queue = Queue.of(stage, total, len(problems), run.step)
        rollout_grader = RolloutGrader(grader, policy.tokenizer, problems, stage, reward_model)
        stream = Stream(fleet, rollout_grader, team, queue, StreamLog(run.path / "stream"), status)
        stack.enter_context(closing(stream))
        stream.sync(sent_weights(policy, stage), run.step)
        stream.resume(state)
        train(learner, models, stream, stage, run, total, looks_of(run, stream, asked))
    return run.finish(policy.save, problems=len(problems))


def all_numbers(policy: Policy, critic: ActorCritic | None, entropy_gradient: bool, batch: Batch) -> Tensor:
    """A number that depends on all weights that are trained, in all ways in which a loss does."""
    numbers = policy.logps_and_entropy(batch, 1.0, entropy_gradient) if critic is None else critic(batch, 1.0, entropy_gradient)
    return torch.stack([part.sum() for part in numbers]).sum()


def train(
    learner: Learner, models: Models, stream: Stream, stage: Rlvr, run: Run, total: int, looks: Looks | None = None
) -> None:
    """Every step trains on the rollouts that the stream has ready, and gives the engines its new weights."""
    policy, status, is_main = models.policy, stream.status, learner.parallel.is_main
    with run.interruptible(), Progress(run.job.stage, total, run.step, is_main) as progress:
        for index in range(run.step, total):
            began = time.monotonic()
            rates = update_rates(stage, index, total)
            status.say(state="waiting for rollouts", step=index, steps=total)
            rollouts = stream.take()
            sampled = time.monotonic()
            taken = stream.taken
            run.journal("graded", step=index + 1, positions=taken.sampled, rows=ids(taken.rollouts.sampled))
            status.say(state="training")
            notes = TokenNotes()
            metrics = update(learner, models, rollouts, stage, index, rates, notes)
            updated = time.monotonic()
            stream.sync(sent_weights(policy, stage), index + 1)
            # Behind the sync, which waits for the device in any case.
            with stream.forgetting():
                metrics |= check_weights(learner.parallel, notes.by_source(index), index + 1, not stage.resources.engines)

            run.step = index + 1
            seconds = time.monotonic() - began
            measured = learner.meter.read(seconds, updated - sampled)
            metrics |= {**stream.figures(seconds, sampled - began), "learning_rate": rates[0]}
            metrics |= looks.after(run.step, run.step == total) if looks else {}
            run.log(run.step, {**metrics, **measured})
            seen = notes.read() if is_main else {}
            run.rollouts(run.step, record(taken.rollouts, policy.tokenizer, seen, stage.compares_later))
            run.journal("trained", step=run.step, positions=taken.trained, rows=ids(taken.rollouts.trained))
            progress.update(run.step, metrics, metrics.get("tokens_per_second"), measured["mfu"])
            status.say(state="saving", step=run.step, last={**metrics, **measured})
            with status.waiting("the checkpoint to be written"):
                run.end_step(run.step == total, stream.checkpoint)
            stream.settle(run.checkpoints.oldest_step())


def ids(rollouts: Sequence[Rollout]) -> list[str]:
    """The problems of these, by name."""
    return [rollout.problem.id for rollout in rollouts]


def update_rates(stage: Rlvr, index: int, total: int) -> list[float]:
    """The learning rate of each update of step `index` of `total`."""
    each = stage.minibatches * stage.updates
    if stage.rate_by == "step":
        return [learning_rate(stage, index, total)] * each
    return [learning_rate(stage, index * each + update, total * each) for update in range(each)]


def update(
    learner: Learner,
    models: Models,
    rollouts: StepRollouts,
    stage: Rlvr,
    index: int,
    rates: Sequence[float],
    notes: TokenNotes | None = None,
) -> dict[str, float]:
    """The optimizer steps on one step's rollouts; the metrics of the last one. `notes` take what the first update of each token
    sees of it."""
    parallel = learner.parallel
    spare = spare_batch(rollouts, stage)
    with evaluating(learner.model.module):
        minibatches: list[Sequence[RolloutBatch]] = []
        for part in rollouts.parts(stage.minibatches):
            trained = [rollout.to_train(stage.mask_truncated) for _, rollout in part]
            rows = pack_rollouts(trained, stage, [place for place, _ in part])
            minibatches.append(fix(models, rows, spare, stage, parallel))

    objective: Objective[Any] = partial(grpo, models.policy, stage, notes=notes)
    if models.critic is not None and stage.value is not None:
        objective = partial(ppo, models.critic, stage, stage.value, index, notes=notes)
        minibatches = [*token_advantages(minibatches, stage, stage.value, parallel)]
        spare = spare and spare_ppo_batch(spare)
    elif stage.compares_later:
        minibatches = [compare_less_kl(rows, stage) for rows in minibatches]

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
        weighed = weigh(minibatches[place], stage, parallel, index * len(rates) + number)
        if notes is not None:
            notes.moved = number > 0 and not asks_before(models, stage)
        metrics = step(learner, weighed, objective, normaliser(stage), spare)
        first = first or metrics
    # Before the first update learner and engine hold the same weights, or weights that lie max_staleness steps apart.
    return metrics | ({"mismatch": first["mismatch"]} if first else {})


def asks_before(models: Models, stage: Rlvr) -> bool:
    """Whether the policy's log-probs of all tokens are taken before the first update of a step."""
    return models.critic is not None or stage.compares_later or (stage.old == "step" and ratio_moves(stage))


def spare_batch(rollouts: StepRollouts, stage: Rlvr) -> RolloutBatch | None:
    """A row for a process that has fewer rows than the others, which trains on it at weight 0; None if it sampled nothing."""
    # A completion that no engine began has no token, and so no place in a row.
    whole = [one for one in rollouts.sampled if all(completion.tokens for completion in one.group.completions)]
    if not whole:
        return None
    first = replace(whole[0], advantages=(0.0,) * stage.samples)
    return RolloutBatch(**{**vars(pack_rollouts([first], stage)[0]), "sampled_C": None})


def fix(
    models: Models, rows: Sequence[SampledBatch], spare: SampledBatch | None, stage: Rlvr, parallel: Parallel
) -> Sequence[RolloutBatch]:
    """The rows with what must not move while they are trained on, all without dropout.

    That is the policy's log-probs before the updates, those of the KL reference and of the teacher, and the values of the value
    model. In a single update the ratio to the log-probs before is 1 by definition, unless adapters drop out.
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
        elif asks_before(models, stage):
            before["old_logps_N"] = models.policy.logps(row, stage.temperature)
        if models.kl_reference is not None:
            before["kl_reference_N"] = models.kl_reference(row)
        if models.teacher is not None:
            before["teacher_logps_N"] = models.teacher(row)
        if is_own:
            fixed.append(RolloutBatch(**{**vars(row), **before}))
    return fixed


def remember(
    learner: Learner, policy: Policy, rows: Sequence[RolloutBatch], spare: RolloutBatch | None, stage: Rlvr
) -> Sequence[RolloutBatch]:
    """The rows of a mini-batch with the log-probs under the policy as it is now, before it is first trained on them."""
    with evaluating(learner.model.module):
        now = [(row, policy.logps(row, stage.temperature), own) for row, own in learner.parallel.level(rows, spare)]
    return [replace(row, old_logps_N=logps_N) for row, logps_N, own in now if own]
