"""Combinations of RLVR's algorithm that mean nothing, or not what they seem to: each with its key and its cure."""

from collections.abc import Iterator

from tulu.config.locate import policy_problem, reward_model_problem, start_problem
from tulu.config.mistakes import MISSING, Mistake
from tulu.config.values import Values

CLIPS = {
    "cispo": "clip_low: 1.0 (no lower bound, as in the paper) and clip_high: 0.2",
    "gspo": "clip_low: 3.0e-4 and clip_high: 4.0e-4 (the paper's; the ratio of a completion hardly moves)",
}
"""The bounds that a loss needs written, because the default ones are those of clip."""
RATIO_FIELDS = {"ratio_outside": "truncate", "ratio_level": "token"}
"""Fields about a ratio that has bounds, with their defaults."""


def _micro_mean(stage: Values) -> Iterator[Mistake]:
    update = stage.batch // stage.minibatches
    if stage.denominator == "micro_mean" and update % stage.loss_micro_batch:
        text = (
            f"{update} completions of an update are no multiple of it, and micro_mean is defined by it; use a divisor of {update}"
        )
        yield stage.mistake("loss_micro_batch", text)


def _old(stage: Values) -> Iterator[Mistake]:
    if stage.old == "minibatch" and stage.advantage == "gae":
        yield stage.mistake("old", "advantage gae takes log-probs and values together before the first update; set step")


def _value_model(stage: Values) -> Iterator[Mistake]:
    gae = stage.advantage == "gae"
    if stage.value is None:
        if gae:
            yield stage.mistake("value", "missing; advantage gae (PPO) needs a value model, such as value: {}", MISSING)
        elif stage.samples == 1 and stage.advantage != "none":
            yield stage.mistake("samples", "one completion has nothing to be compared with; use 2 or more, or advantage: gae")
        return
    if not gae:
        yield stage.mistake("value", f"advantage {stage.advantage} uses no value model; set advantage: gae, or remove it", "set")
    if stage.samples == 1 and stage.refill:
        yield stage.mistake("refill", "one completion never differs from its group: every prompt would be refilled; set false")
    if stage.value.path is not None and (problem := reward_model_problem(stage.value.path)):
        yield stage.mistake("value.path", problem, stage.value.path)
    if stage.value.clip_norm is not None and stage.clip_norm is None:
        text = f"the policy's gradient would not be clipped; set {stage.name}.clip_norm too, or remove it"
        yield stage.mistake("value.clip_norm", text, stage.value.clip_norm)
    if stage.value.warmup and stage.weight_decay:
        text = (
            "weight_decay shrinks the policy's weights while only the value model learns; "
            f"set {stage.name}.weight_decay to 0.0, or warmup to 0"
        )
        yield stage.mistake("value.warmup", text, stage.value.warmup)
    over = stage.value.whiten_over
    if over is not None and stage.batch % over:
        text = f"batch {stage.batch} is no multiple of it; use a divisor of the batch, or null for all of a step"
        yield stage.mistake("value.whiten_over", text, over)


def _clips(stage: Values) -> Iterator[Mistake]:
    if stage.loss in CLIPS:
        for key in ("clip_low", "clip_high"):
            if key not in stage.given:
                text = f"missing, and the default is meant for loss clip; write both, such as {CLIPS[stage.loss]}"
                yield stage.mistake(key, text, MISSING)


def _kl(stage: Values) -> Iterator[Mistake]:
    place = stage.kl_in or ("reward" if stage.advantage == "gae" else "loss")
    if stage.beta == 0:
        if stage.kl_in is not None:
            yield stage.mistake("kl_in", "beta is 0, so there is no KL divergence; set beta, or remove kl_in")
        return
    if place == "loss" and stage.kl == "k1":
        text = "in the loss its gradient has mean 0 and pulls nowhere; set kl_in: reward, or kl: k2 or k3"
        yield stage.mistake("kl", text)
    if place == "reward" and stage.advantage == "none":
        yield stage.mistake("kl_in", "advantage none uses no rewards; set kl_in: loss, or remove beta")
    if place == "reward" and stage.advantage != "gae" and stage.mask_truncated:
        text = "the KL of completions that are left out is not computed, and their group needs it; set it false, or kl_in: loss"
        yield stage.mistake("mask_truncated", text)


def _ratio(stage: Values) -> Iterator[Mistake]:
    floor, cap = stage.ratio_floor, stage.ratio_cap
    if cap is not None and cap < 1:
        yield stage.mistake(
            "ratio_cap", "learner and sampler agree at a ratio of 1, which it must let through; use 1 or more, or null"
        )
    if floor is not None and floor > 1:
        yield stage.mistake(
            "ratio_floor", "learner and sampler agree at a ratio of 1, which it must let through; use 1 or less, or null"
        )
    if cap is None and floor is None:
        for key, default in RATIO_FIELDS.items():
            if getattr(stage, key) != default:
                text = f"no bound is set, so nothing is corrected; set ratio_cap, such as 2.0, or leave it at {default}"
                yield stage.mistake(key, text)


def _overlong(stage: Values) -> Iterator[Mistake]:
    buffer = stage.overlong_buffer
    if buffer is None:
        if stage.overlong_penalty != stage.declared["overlong_penalty"].default:
            yield stage.mistake("overlong_penalty", "there is no penalty without overlong_buffer; set it, or remove this")
        return
    if stage.advantage == "none":
        yield stage.mistake("overlong_buffer", "advantage none uses no rewards; remove it")
    if buffer >= stage.max_tokens:
        text = f"every completion would be penalised, max_tokens is {stage.max_tokens}; use a part of that, such as a fifth"
        yield stage.mistake("overlong_buffer", text)
    if stage.no_stop_score is not None:
        text = "both punish a completion that reaches max_tokens; keep one of no_stop_score and overlong_buffer"
        yield stage.mistake("overlong_buffer", text)


def _teacher(stage: Values) -> Iterator[Mistake]:
    teacher = stage.teacher
    if stage.advantage == "none":
        if teacher is None:
            yield stage.mistake("advantage", "nothing would be learned; set teacher, or another advantage")
        if stage.refill:
            text = "with advantage none no group teaches by its rewards: all would be refilled; set false"
            yield stage.mistake("refill", text)
    if teacher is None:
        return
    if stage.advantage == "gae" and teacher.through == "advantage":
        text = "advantages of gae are whitened, and the teacher's would have another scale; set k2 (in the loss)"
        yield stage.mistake("teacher.through", text, teacher.through)
    if problem := start_problem(teacher.path) or policy_problem(teacher.path):
        yield stage.mistake("teacher.path", problem, teacher.path)


ALGORITHM_CHECKS = (_micro_mean, _old, _value_model, _clips, _kl, _ratio, _overlong, _teacher)
