"""What is known of one episode while it is played: completions of several turns, between which an environment acts."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal

from tulu import deadlines
from tulu.config.parts import EnvironmentSettings
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
    doing: str = ""
    """What its environment was asked for last: reset, the tools of a turn, get_reward."""
    doing_since: float = 0.0
    job: Future[Any] | None = None
    """That work, which begins when a thread is free for it."""

    def begin(self, doing: str, job: Future[Any]) -> None:
        """Its environment is asked for something."""
        self.state, self.doing, self.doing_since, self.job = "acting", doing, deadlines.now(), job

    def act(self, calls: Sequence[ToolCall], settings: EnvironmentSettings) -> list[str]:
        """Let the environment do the calls of a turn; this waits for it, as the following do."""
        assert self.process is not None
        return self.process.call([(call.name, call.arguments) for call in calls], settings.call_seconds, settings.turn_seconds)

    def reply(self, turn: Mapping[str, Any], settings: EnvironmentSettings) -> list[dict[str, Any]] | None:
        """Give a turn to an environment that drives."""
        assert self.process is not None
        return self.process.reply(turn, settings.turn_seconds)

    def score(self, settings: EnvironmentSettings) -> float | None:
        """Let the environment score the episode; one that drives is refused the further turn that it waits for."""
        assert self.process is not None
        if self.asked:
            self.process.stop(settings.turn_seconds)
        return self.process.reward(settings.call_seconds)

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


Doing = tuple[str, float]
"""What an environment does, and since when."""


def acting_told(acting: Mapping[str, Doing], now: float) -> list[str]:
    """What the environments of these episodes do, in words: ["2 in the environment (reset) for 12 s"]."""
    since: dict[str, list[float]] = {}
    for doing, began in acting.values():
        since.setdefault(doing, []).append(began)
    return [f"{len(begun)} in the environment ({doing}) for {now - min(begun):.0f} s" for doing, begun in since.items()]


def verdict_of(reward: float | None) -> Verdict:
    """What an environment's reward of an episode means; None is no score, which is not 0."""
    return Verdict(None, "error", "the environment gives this episode no score") if reward is None else Verdict(reward)
