"""What is known of one episode while it is played: completions of several turns, between which an environment acts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tulu.environments.nursery import EpisodeProcess
from tulu.environments.turns import ToolCall, Turns
from tulu.rollout.fleet import Finished, Request
from tulu.types import Completion, Finish, Verdict

NOTHING = Completion([], [], [])

State = Literal["acting", "ready", "sampling"]


@dataclass(eq=False)
class Episode:
    """One episode, between its first request and its end."""

    request: Request
    began: float
    process: EpisodeProcess | None = None
    so_far: Completion = NOTHING
    """Everything behind the prompt: turns of the policy, and what was said between them."""
    turn: int = 0
    turn_start: int = 0
    """Where the policy's present turn begins in `so_far`."""
    state: State = "acting"
    """acting: its environment works; ready: its next turn can be sampled; sampling: an engine works on it."""
    waits: bool = True
    """Whether somebody waits for it; one that was cut goes on where it is once it is asked for again."""
    known: int = 0
    """How many tokens of `so_far` an environment that drives has been told."""
    asked: bool = False
    """Whether an environment that drives waits for a turn."""
    engine: str = ""
    over: Finished | None = None
    """How it ended, once it has."""

    def told(self, turns: Turns, calls: Sequence[ToolCall], finish: Finish) -> Mapping[str, Any]:
        """Its last turn as an environment that drives takes it, with the tokens that came since the turn before."""
        tokens, logps = list(self.so_far.tokens), list(self.so_far.sampler_logps or ())
        before = [*(() if self.known else self.request.prompt), *tokens[self.known : self.turn_start]]
        self.known = len(tokens)
        content, reasoning = turns.said(tokens[self.turn_start :], calls)
        return {
            "content": content,
            "reasoning": reasoning,
            "calls": [{"id": call.id, "name": call.name, "arguments": json.dumps(dict(call.arguments))} for call in calls],
            "finish": finish,
            "before": before,
            "tokens": tokens[self.turn_start :],
            "logps": logps[self.turn_start :],
        }


def verdict_of(reward: float | None) -> Verdict:
    """What an environment's reward of an episode means; None is no score, which is not 0."""
    return Verdict(None, "error", "the environment gives this episode no score") if reward is None else Verdict(reward)
