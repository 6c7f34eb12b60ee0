"""How much arithmetic a stage takes: operations (FLOPs) of its forward and backward passes.

Counted as tulu/model/work.py does, with mean lengths in place of a batch: a product of a token with a weight takes 2 operations
forward and twice as many backward, attention 4 for each pair of a query and a key that it sees and each of the width of its
heads, and an output head works where it is read (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tulu.config.lengths import Lengths
from tulu.config.schema import Base, Dpo, Rlvr, Rm, TrainStage
from tulu.config.sizes import Size

PROMPT_SHARE = 1 / 3
"""Share of a conversation that is prompt, in which nothing is trained and which a pair has once. An assumption."""
RECOMPUTED = {False: 0.0, True: 1.0, "selective": 0.5}
"""Forward passes that gradient checkpointing computes again in a backward pass."""


@dataclass(frozen=True)
class Load:
    """Mean work of one unit of a batch: a sequence, a pair, or a prompt with all its completions."""

    tokens: float
    read: float
    """Positions that are projected onto the vocabulary."""
    pairs: Mapping[int | None, float]
    """(query, key) pairs that attention with a window sees, by the window."""


def load_of(stage: TrainStage, size: Size, lengths: Lengths) -> Load:
    """The load of a sequence or of a pair, whose prompt is computed once."""
    pairs = {window: lengths.pairs(window) for window, _ in size.windows}
    trained = lengths.tokens * (1.0 if isinstance(stage, Base) else 1 - PROMPT_SHARE)
    if not isinstance(stage, Dpo | Rm):
        return Load(lengths.tokens, trained, pairs)
    both = {window: (2 - PROMPT_SHARE**2) * seen for window, seen in pairs.items()}
    return Load((2 - PROMPT_SHARE) * lengths.tokens, 0.0 if isinstance(stage, Rm) else 2 * trained, both)


def rollout_load(stage: Rlvr, size: Size, prompt: float, answers: Lengths) -> Load:
    """The load of a prompt with all its completions, each of which sees the prompt and itself."""
    answered = stage.samples * answers.tokens

    def seen(window: int | None) -> float:
        most = prompt if window is None else min(prompt, window)
        return prompt * most / 2 + stage.samples * (most * answers.tokens + answers.pairs(window))

    return Load(prompt + answered, answered, {window: seen(window) for window, _ in size.windows})


def forward(size: Size, load: Load) -> float:
    """Operations of one forward pass."""
    attention = sum(layers * 4 * size.heads * load.pairs[window] for window, layers in size.windows)
    return 2 * size.body * load.tokens + attention + _head(size, load)


def training(stage: TrainStage, size: Size, load: Load) -> tuple[float, float]:
    """Operations of a forward and a backward pass, and of what gradient checkpointing computes again.

    Frozen weights behind adapters take no gradient: their backward pass is as long as the forward pass, not twice.
    """
    once = forward(size, load)
    backward = 2 * once - (2 * size.body * load.tokens if stage.lora else 0.0)
    return once + backward, RECOMPUTED[stage.gradient_checkpointing] * (once - _head(size, load))


def stage_operations(stage: TrainStage, size: Size, load: Load, units: float, rows: float | None) -> dict[str, float]:
    """Operations of a stage over fixed data, by what they are for; `units` sequences or pairs are trained on, of `rows` in all.

    The reference log-probs of DPO are computed once a pair and kept.
    """
    trained, again = training(stage, size, load)
    amounts = {"training": units * trained, "recomputing": units * again}
    if isinstance(stage, Dpo) and stage.loss != "simpo":
        amounts["reference"] = (units if rows is None else min(units, rows)) * forward(size, load)
    return {name: amount for name, amount in amounts.items() if amount}


def learner_operations(
    stage: Rlvr, size: Size, value: Size | None, prompt: float, answers: Lengths, teacher: Size | None = None
) -> dict[str, float]:
    """Operations of the learner in one step of RLVR, by what they are for; a value model or teacher of unknown size is as large
    as the policy.

    What the updates must not move is computed before them, in one forward pass each: log-probs of the policy where ratios can
    move or the KL divergence is taken off the rewards, those of the KL reference and of the teacher, and values. Where ratios
    compare with the log-probs from before a minibatch, these are computed when it is first trained.
    """
    load = rollout_load(stage, size, prompt, answers)
    passes = [training(stage, size, load)]
    at_once = stage.value is not None or stage.compares_later or (stage.old == "step" and _ratios_move(stage))
    before = (at_once + (stage.old == "minibatch" and _ratios_move(stage))) * forward(size, load)
    taught = 0.0
    if stage.teacher is not None:
        other = teacher or size
        taught = forward(other, rollout_load(stage, other, prompt, answers))
    if stage.value is not None:
        critic = value or size
        # A value model may see other windows than the policy, and has no vocabulary to project onto.
        seen = replace(rollout_load(stage, critic, prompt, answers), read=0.0)
        passes.append(training(stage, critic, seen))
        before += forward(critic, seen)
    amounts = {
        "training": stage.updates * sum(trained for trained, _ in passes),
        "recomputing": stage.updates * sum(again for _, again in passes),
        "before the updates": before,
        "reference": forward(size, load) if stage.beta > 0 else 0.0,
        "teacher": taught,
    }
    return {name: stage.prompts * amount for name, amount in amounts.items() if amount}


def _ratios_move(stage: Rlvr) -> bool:
    """Whether a minibatch is trained on after the policy moved away from the log-probs that it is compared with, or with adapters
    of which some drop out."""
    drops_out = stage.lora is not None and stage.lora.dropout > 0
    return stage.updates > 1 or (stage.old == "step" and stage.minibatches > 1) or drops_out


def _head(size: Size, load: Load) -> float:
    return 2.0 * size.vocabulary * size.hidden * load.read
