"""How long an engine samples in one step of RLVR in which it samples, and then learns.

The longest answer ends it: at the end of a batch an engine writes few answers, hardly faster than it wrote many.
"""

from dataclasses import dataclass

from tulu.config.cards import Card
from tulu.config.decoding import ENGINE_SHARE, decoder, engine_of, least_gpus
from tulu.config.lengths import Lengths
from tulu.config.schema import Rlvr
from tulu.config.sizes import Size

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


def sampling(
    stage: Rlvr,
    size: Size,
    card: Card,
    processes: int,
    mfu: float,
    prompt: float,
    answers: Lengths,
    share: float = ENGINE_SHARE,
    gpus: int | None = None,
) -> Sampling:
    """The time of one step's sampling, where every GPU takes an equal share of the completions.

    A model that does not fit one engine's memory is spread over GPUs: over as few as hold it, or over more where their memory for
    keys and values makes them faster; over so many `gpus` if given. An engine has this share of a GPU's memory.
    """
    least = least_gpus(size, card, share)
    offered = [least] if least == 1 else [width for width in (least, 2 * least, 4 * least) if width <= max(least, processes)]
    widths = offered if gpus is None else [gpus]
    spreads = (_spread(stage, size, card, processes, mfu, prompt, answers, width, share) for width in widths)
    return min(spreads, key=lambda it: it.seconds)


def _spread(
    stage: Rlvr,
    size: Size,
    card: Card,
    processes: int,
    mfu: float,
    prompt: float,
    answers: Lengths,
    gpus: int,
    share: float,
) -> Sampling:
    """The same with engines over so many GPUs each."""
    engine = decoder(size, card, gpus, mfu, prompt + answers.tokens, share, engine_of(stage))
    engines = max(1.0, processes / gpus)
    written = stage.batch / engines
    room = engine.at_once(prompt + answers.tokens / 2)
    at_once = written if room is None else room
    seconds = engine.prompt_seconds(prompt * stage.prompts / engines)
    width = answers.longest / PARTS
    for part in range(PARTS):
        depth = (part + 0.5) * width
        left = answers.above(depth)
        # Answers for which there is no memory wait: the same depth is then gone through several times.
        turns, side_by_side = max(1.0, written * left / at_once), min(written * left, at_once)
        someone_writes = 1 - (1 - left) ** written
        seconds += width * turns * engine.step_seconds(side_by_side, side_by_side * (prompt + depth)) * someone_writes
    return Sampling(seconds, gpus, at_once)
