"""Rollouts as rows of tokens, with the numbers that a policy update needs of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tulu.config.schema import Rlvr
from tulu.errors import EngineError
from tulu.model.batch import Batch, pack
from tulu.rollout.sampler import Rollout
from tulu.types import Completion


@dataclass(frozen=True, kw_only=True)
class SampledBatch(Batch):
    """A row of sampled completions."""

    advantage_C: Tensor
    """Each completion's advantage over its group; its reward where the learner compares rewards later, as with a value model."""
    sampler_logps_N: Tensor
    """Log-probs under the distribution that the engine sampled from."""
    sampled_C: tuple[Completion, ...] | None = None
    """The completions themselves, for notes about their tokens; None of a row that is trained at weight 0."""
    drawn_C: tuple[tuple[int, int], ...] | None = None
    """(group, completion) of every completion: its place among those that all processes train on in the step, in the order of
    drawing. None where nothing is asked that takes the completions of several rows together."""

    @property
    def places_C(self) -> tuple[tuple[int, int], ...]:
        """The same, which what is taken over the completions of all processes cannot do without."""
        if self.drawn_C is None:
            raise ValueError("what is taken over completions of all processes needs to know the place of each")
        return self.drawn_C


@dataclass(frozen=True, kw_only=True)
class RolloutBatch(SampledBatch):
    """A row of sampled completions with what stays fixed while the policy is updated on it."""

    old_logps_N: Tensor | None = None
    """Log-probs under the policy before the updates; None where there is a single update, in which they are its own."""
    kl_reference_N: Tensor | None = None
    """Log-probs under the model that the stage starts from; None where the loss has no KL term."""
    kl_N: Tensor | None = None
    """KL to the starting model, which the rewards already hold; None where they hold none."""
    teacher_logps_N: Tensor | None = None
    """Log-probs under the teacher; None where the recipe has none."""
    old_values_N: Tensor | None = None
    """The value model's values, before the updates, of the states in which the tokens were sampled; None without one."""
    old_end_C: Tensor | None = None
    """Its values of the states in which the completions have ended; None where no reward lies there."""
    weight_C: Tensor | None = None
    """Weight of every token of the completion in the policy's loss; None unless the recipe averages over micro-batches."""
    value_weight_C: Tensor | None = None
    """The same in the value model's loss."""
    share_C: Tensor | None = None
    """Share of one micro-batch of the original; a micro-batch's shares add up to 1."""


def pack_rollouts(rollouts: Sequence[Rollout], stage: Rlvr, places: Sequence[int] | None = None) -> list[SampledBatch]:
    """Packed rows of the rollouts that have a completion to train on; `places` are theirs among those of all processes.

    Raises EngineError if the engine gave no log-probs.
    """
    placed = zip(range(len(rollouts)) if places is None else places, rollouts, strict=True)
    kept = [(place, rollout) for place, rollout in placed if rollout.group.completions]
    rollouts = [rollout for _, rollout in kept]
    advantages = [rollout.advantages for rollout in rollouts]
    logps = [[completion.sampler_logps for completion in rollout.group.completions] for rollout in rollouts]
    if any(row is None for rows in logps for row in rows):
        raise EngineError("the engine gave no log-probs with its completions, so nothing can be trained on them")
    return [
        SampledBatch(
            **vars(batch),
            advantage_C=batch.of_completions(advantages),
            sampler_logps_N=batch.of_tokens([[row or () for row in rows] for rows in logps]),
            sampled_C=tuple(rollouts[group].group.completions[place] for group, place in batch.index_C),
            drawn_C=tuple((kept[group][0], place) for group, place in batch.index_C),
        )
        for batch in pack([rollout.group for rollout in rollouts], stage.row_limit, stage.micro_batch)
    ]
