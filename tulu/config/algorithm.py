"""What RLVR makes of rewards: advantages, the policy's loss, its corrections and penalties. docs/recipes.md lists the lines of
each published algorithm.
"""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from tulu.config.parts import NonNegative, OneTeacher, OneValueModel, Probability
from tulu.config.training import TrainStage


class Algorithm(TrainStage):
    """The fields of RLVR that say how it learns from rewards."""

    advantage: Literal["standard", "centred", "loo", "gae", "none"] = "centred"
    """How a score s is compared with its group: standard (s-μ)/σ, centred s-μ, loo s minus the mean of the others. gae is PPO,
    which compares with `value` token by token; none leaves all to the `teacher`."""
    value: OneValueModel = None
    """Value model of gae, trained beside the policy; a path or a section."""
    ddof: Literal[0, 1] = 0
    """What is taken off the number of samples in the σ of `advantage: standard`: 1 in Tülu 3.1's code, 0 in grpo_fast."""
    minibatches: PositiveInt = 1
    """Number of optimizer steps into which one step's prompts are split, in the order of drawing and whatever the number of
    processes. With fewer prompts in one than there are processes, some of these have nothing to do."""
    updates: PositiveInt = 1
    """Passes over one step's rollouts."""
    loss: Literal["clip", "cispo", "gspo"] = "clip"
    """What bounds an update: clip is PPO's and GRPO's, token by token; cispo bounds a token's weight and keeps its gradient; gspo
    clips by the ratio of the whole completion."""
    clip_low: Probability = 0.2
    """Ratios below 1 - clip_low get no gradient where the advantage is negative; under cispo they count as that bound, and 1.0 is
    no bound."""
    clip_high: NonNegative = 0.2
    """Ratios above 1 + clip_high get no gradient where the advantage is positive (clip-higher: 0.272); under cispo they count as
    that bound."""
    old: Literal["step", "minibatch"] = "step"
    """When the log-probs are taken that ratios compare with: step, before a step's first update; minibatch, when a minibatch is
    first trained, so that no ratio is clipped in the first pass (Tülu 3.1's code)."""
    denominator: Literal["token", "constant", "sequence", "micro_mean"] = "token"
    """What an update's loss is divided by: token by the tokens trained, constant by completions × max_tokens, sequence by the
    length of each completion and then by completions; what is masked counts in none. micro_mean averages means over micro-batches
    (released Tülu 3 and OLMo 2)."""
    loss_micro_batch: PositiveInt = 1
    """Completions in a micro-batch of the original training run, by which micro_mean is defined; not micro_batch."""
    rate_by: Literal["step", "update"] = "step"
    """Whether the learning rate advances from step to step, whose updates then share one, or from update to update."""
    kl: Literal["k1", "k2", "k3", "k4"] = "k3"
    """Estimator of the KL divergence, with d = log π - log π_ref: k1 is d, k2 d²/2, k3 e^-d - 1 + d, k4 ratio · d."""
    beta: NonNegative = 0.0
    """Weight of the KL divergence to the starting model, in the loss or the reward; 0 needs no reference."""
    kl_in: Literal["loss", "reward"] | None = None
    """Where the KL divergence is lowered: in the loss, or taken off the rewards, of every token for gae and of every completion
    else. null is the reward for gae and else the loss."""
    entropy_bonus: NonNegative = 0.0
    """Weight of the policy's entropy, which the loss then raises; 0 leaves it out."""
    ratio_cap: PositiveFloat | None = 2.0
    """Cap of the ratio of a token's probability in the learner to that in the engine which sampled it, by which its loss is
    multiplied; null does not correct for their difference."""
    ratio_floor: PositiveFloat | None = None
    """Lower bound of that ratio; null has none."""
    ratio_outside: Literal["truncate", "mask"] = "truncate"
    """What becomes of a ratio outside its bounds: truncate takes the bound, mask leaves the tokens out of the policy's loss."""
    ratio_level: Literal["token", "sequence", "geometric"] = "token"
    """Whose ratio it is: each token's, the product over its completion, or the product's root by the number of tokens."""
    overlong_buffer: PositiveInt | None = None
    """Last tokens before max_tokens over which a penalty on long completions grows (DAPO); null has none."""
    overlong_penalty: PositiveFloat = 1.0
    """Most that this penalty takes off, from max_tokens on, in the unit of reward_scale."""
    teacher: OneTeacher = None
    """Model that the policy is distilled from on its own completions (reverse KL); a path or a section."""

    @property
    def kl_in_reward(self) -> bool:
        """Whether the KL divergence is taken off the rewards."""
        return self.beta > 0 and (self.kl_in or ("reward" if self.advantage == "gae" else "loss")) == "reward"

    @property
    def compares_later(self) -> bool:
        """Whether the rewards are compared only when the learner has computed values or KL divergences."""
        return self.advantage == "gae" or (self.kl_in_reward and self.advantage != "none")
