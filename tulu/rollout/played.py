"""An engine that plays episodes: an evaluation asks for completions, and gets what the policy and its tools made of them."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from tulu.rollout.acting import Acting
from tulu.rollout.engine import RolloutEngine
from tulu.rollout.fleet import Finished, Request
from tulu.rollout.local_fleet import LocalFleet
from tulu.types import Completion, Group, Problem, SamplingParams

WAIT_SECONDS = 1.0
"""How long ends are waited for at a time."""


class PlayedEngine:
    """Any engine as one whose completions are episodes; `acting` must have loaded the problems."""

    def __init__(self, engine: RolloutEngine, acting: Acting, problems: Sequence[Problem]) -> None:
        self.fleet = acting.fleet(LocalFleet(engine), problems)

    @property
    def version(self) -> int:
        """That of the engine."""
        return self.fleet.version

    def generate(self, problems: Sequence[Problem], n: int, params: SamplingParams) -> list[Group]:
        """Play n episodes of each problem and return one Group per problem, in order."""
        wanted = [
            Request(f"{place}:{sample}", one.id, one.prompt, params, sample, n)
            for place, one in enumerate(problems)
            for sample in range(n)
        ]
        waiting, playing = list(wanted), dict[str, Request]()
        ended: dict[str, Completion] = {}
        while len(ended) < len(wanted):
            # Whole groups, which an engine in this process draws at once.
            room = max(n, self.fleet.room() // n * n) if not playing else self.fleet.room() // n * n
            begun, waiting = waiting[:room], waiting[room:]
            playing |= {request.key: request for request in begun}
            self.fleet.submit(begun)
            for end in self.fleet.collect(WAIT_SECONDS):
                if isinstance(end, Finished):
                    ended[end.key] = end.completion
                    del playing[end.key]
                else:
                    self.fleet.submit([playing[end.key]])
        completions = iter(ended[request.key] for request in wanted)
        return [Group(one.prompt, [next(completions) for _ in range(n)], one.id) for one in problems]

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Hand the weights to the engine."""
        self.fleet.sync(weights, version)

    def close(self) -> None:
        """End the environments and the engine."""
        self.fleet.close()
