"""How long an engine samples in one step of RLVR: a model of decoding, with its assumptions in the constants.

A decoding step makes one token of every answer that is still being written. It reads all weights and the keys and values of
those answers, which takes longer than the arithmetic unless very many are written at once. It ends when the longest answer does:
at the end of a batch an engine writes few answers, hardly faster than it wrote many.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tulu.config.cards import Card
from tulu.config.lengths import Lengths
from tulu.config.plan import GIB
from tulu.config.schema import Rlvr
from tulu.config.sizes import Size

BANDWIDTH = 0.7
"""Share of the memory's bandwidth that decoding reaches. An assumption."""
LEAST: Mapping[str, float] = {"vllm": 0.005, "transformers": 0.03}
"""Least seconds of a decoding step, by the engine: launches and Python. Assumptions."""
ENGINE_SHARE = 0.45
"""Share of a GPU's memory that vLLM has beside a learner (`gpu_share` in tulu/rollout/engine.py)."""
PARTS = 256
"""Parts of the longest answer over which decoding is added up."""


@dataclass(frozen=True)
class Sampling:
    """The sampling of one step."""

    seconds: float
    gpus: int
    """GPUs over which an engine must spread the weights."""
    at_once: float
    """Answers for which an engine has memory at the same time, each as long as the mean."""


def engine_of(stage: Rlvr) -> str:
    """The engine on a GPU; `auto` is vllm there."""
    return "transformers" if stage.engine == "transformers" else "vllm"


def sampling(stage: Rlvr, size: Size, card: Card, processes: int, mfu: float, prompt: float, answers: Lengths) -> Sampling:
    """The time of one step's sampling, where every GPU takes an equal share of the completions.

    A model that does not fit one engine's memory is counted as spread evenly over GPUs, without what they exchange: over as few
    as hold it, or over more where their memory for keys and values makes them faster.
    """
    least = 1
    while 2.0 * size.parameters > 0.9 * least * ENGINE_SHARE * card.gib * GIB:
        least *= 2
    offered = [least] if least == 1 else [gpus for gpus in (least, 2 * least, 4 * least) if gpus <= max(least, processes)]
    return min((_spread(stage, size, card, processes, mfu, prompt, answers, gpus) for gpus in offered), key=lambda it: it.seconds)


def _spread(
    stage: Rlvr, size: Size, card: Card, processes: int, mfu: float, prompt: float, answers: Lengths, gpus: int
) -> Sampling:
    """The same with engines over so many GPUs each. Prompts are computed once, and weights have 16 bits."""
    engines = max(1.0, processes / gpus)
    written = stage.batch / engines
    a_token = cache_a_token(size, prompt + answers.tokens)
    free = gpus * ENGINE_SHARE * card.gib * GIB - 2.0 * size.parameters
    at_once = max(1.0, free / (a_token * (prompt + answers.tokens / 2))) if a_token else written
    bandwidth, peak = gpus * card.bandwidth * BANDWIDTH, gpus * card.peak * mfu
    seconds = 2.0 * size.body * prompt * stage.prompts / engines / peak
    width = answers.longest / PARTS
    for part in range(PARTS):
        depth = (part + 0.5) * width
        left = answers.above(depth)
        # Answers for which there is no memory wait: the same depth is then gone through several times.
        turns, side_by_side = max(1.0, written * left / at_once), min(written * left, at_once)
        read = (2.0 * _read_weights(size, side_by_side) + side_by_side * a_token * (prompt + depth)) / bandwidth
        computed = 2.0 * size.active * side_by_side / peak
        someone_writes = 1 - (1 - left) ** written
        seconds += width * turns * max(read, computed, LEAST[engine_of(stage)]) * someone_writes
    return Sampling(seconds, gpus, at_once)


def cache_a_token(size: Size, length: float) -> float:
    """Bytes of keys and values of a token in 16 bits; a layer with a window keeps those within it alone."""
    layers = sum(count * (1.0 if window is None else min(1.0, window / length)) for window, count in size.windows)
    return 2 * 2.0 * size.kv * layers


def _read_weights(size: Size, tokens: float) -> float:
    """Weights that a decoding step of so many tokens reads: all; of a mixture of experts those that a token passes through."""
    return min(size.parameters, size.active * max(1.0, tokens))
