"""How fast an engine writes: a model of decoding, with its assumptions in the constants.

A decoding step makes one token of every answer that is being written. It reads all weights, and the keys and values of those
answers, which takes longer than the arithmetic unless very many are written at once. So an engine that writes few answers is
hardly faster with each of them than one that writes many.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tulu.config.cards import Card
from tulu.config.plan import GIB
from tulu.config.schema import Rlvr
from tulu.config.sizes import Size

BANDWIDTH = 0.7
"""Share of the memory's bandwidth that decoding reaches. An assumption."""
LEAST: Mapping[str, float] = {"vllm": 0.005, "transformers": 0.03}
"""Least seconds of a decoding step, by the engine: launches and Python. Assumptions."""
ENGINE_SHARE = 0.45
"""Share of a GPU's memory that vLLM has beside a learner (`gpu_share` in tulu/rollout/engine.py)."""
APART_SHARE = 0.9
"""The same of a GPU that it has for itself (tulu/rollout/fleet_places.py)."""
WEIGHTS_SHARE = 0.9
"""Most of an engine's memory that its weights may take; the rest holds keys and values."""


@dataclass(frozen=True)
class Decoder:
    """One engine, spread evenly over its GPUs, without what these exchange. Weights, keys and values have 16 bits."""

    size: Size
    a_token: float
    """Bytes of keys and values of a token."""
    memory: float
    """Bytes for keys and values."""
    bandwidth: float
    """Bytes a second that it reads."""
    peak: float
    """Operations a second that it reaches."""
    least: float
    """Seconds below which no decoding step is."""

    def step_seconds(self, writing: float, cached: float) -> float:
        """A decoding step of so many answers, which with their prompts have so many tokens in the cache together."""
        # A mixture of experts reads those experts that its tokens pass through.
        weights = min(self.size.parameters, self.size.active * max(1.0, writing))
        read = (2.0 * weights + self.a_token * cached) / self.bandwidth
        return max(read, 2.0 * self.size.active * writing / self.peak, self.least)

    def prompt_seconds(self, tokens: float) -> float:
        """Reading a prompt, which is computed once for all answers to it."""
        return 2.0 * self.size.body * tokens / self.peak

    def at_once(self, tokens: float) -> float | None:
        """Answers for which it has memory at the same time, each with so many tokens; None where they need none that is known."""
        return max(1.0, self.memory / (self.a_token * tokens)) if self.a_token else None


def decoder(size: Size, card: Card, gpus: int, mfu: float, length: float, share: float, engine: str = "vllm") -> Decoder:
    """An engine over so many GPUs, of each of which it has this share of the memory; answers have this length with their
    prompts, at which windows of attention are counted."""
    return Decoder(
        size=size,
        a_token=cache_a_token(size, length),
        memory=gpus * share * card.gib * GIB - 2.0 * size.parameters,
        bandwidth=gpus * card.bandwidth * BANDWIDTH,
        peak=gpus * card.peak * mfu,
        least=LEAST[engine],
    )


def least_gpus(size: Size, card: Card, share: float) -> int:
    """Over how many GPUs, a power of two, an engine must spread the weights."""
    gpus = 1
    while 2.0 * size.parameters > WEIGHTS_SHARE * gpus * share * card.gib * GIB:
        gpus *= 2
    return gpus


def engine_of(stage: Rlvr) -> str:
    """The engine on a GPU; `auto` is vllm there."""
    return "transformers" if stage.engine == "transformers" else "vllm"


def cache_a_token(size: Size, length: float) -> float:
    """Bytes of keys and values of a token in 16 bits; a layer with a window keeps those within it alone."""
    layers = sum(count * (1.0 if window is None else min(1.0, window / length)) for window, count in size.windows)
    return 2 * 2.0 * size.kv * layers
