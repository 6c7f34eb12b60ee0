"""The nouns that every stage shares, as plain frozen data without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired, TypedDict

Finish = Literal["stop", "length", "data"]
Status = Literal["ok", "timeout", "error"]


class Message(TypedDict):
    """One turn of a conversation, as chat templates take it."""

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    train: NotRequired[bool]
    """False for an assistant's turn that is read and not trained. No template sees it."""


Tools = Sequence[Mapping[str, Any]]
"""The tools that a conversation may call, as JSON schemas; templates write them into the system's turn."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Tokens that follow a prompt, and which of them are trained."""

    tokens: Sequence[int]
    trained: Sequence[bool]
    """For each token whether its log-prob enters the loss."""
    sampler_logps: Sequence[float] | None = None
    """The log-prob of each token under the engine that sampled it; None for data."""
    finish: Finish = "data"
    versions: Sequence[tuple[int, int]] = ()
    """(first token, weight version) wherever the sampling weights changed."""
    verdict: "Verdict | None" = None
    """What the environment makes of an episode, in place of verifiers; None where verifiers grade the completion."""
    engines: Sequence[tuple[int, str]] = ()
    """(first token, engine) wherever another engine went on; () where nobody has said."""

    def __post_init__(self) -> None:
        if len(self.trained) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.trained)} trained flags")
        if self.sampler_logps is not None and len(self.sampler_logps) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.sampler_logps)} sampler log-probs")

    @property
    def n_trained(self) -> int:
        return sum(self.trained)

    @property
    def last_turn(self) -> Sequence[int]:
        """The tokens behind the last one that is not trained, which are an episode's answer; all of an ordinary completion."""
        if all(self.trained):
            return self.tokens
        return self.tokens[len(self.trained) - list(reversed(self.trained)).index(False) :]


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt and its completions: one for SFT, two (chosen, rejected) for DPO and RM, G for RLVR."""

    prompt: Sequence[int]
    completions: Sequence[Completion]
    id: str = ""
    """Where the row comes from, as FILE:LINE or NAME:INDEX. It is unique in a data set."""
    margin: float = 0.0
    """How much better chosen is than rejected, where the data says so (the margin of Bradley-Terry)."""

    @property
    def n_tokens(self) -> int:
        """Tokens that the group takes in a row: the prompt once, then every completion."""
        return len(self.prompt) + sum(len(completion.tokens) for completion in self.completions)


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt whose completions a verifier can score."""

    id: str
    messages: Sequence[Message]
    prompt: Sequence[int]
    """The messages through the chat template, generation prompt included."""
    ground_truth: Any
    verifiers: Sequence[str]
    """Names of the verifiers that score its completions; a problem with several has as many ground truths."""
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def with_tokens(self, count: int) -> "Problem":
        """The same problem with the number of tokens of a completion in its row, for the verifiers of length."""
        return replace(self, row={**self.row, "completion_tokens": count})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier returns: a score, or the reason why there is none."""

    score: float | None
    status: Status = "ok"
    detail: str = ""

    def __post_init__(self) -> None:
        if (self.score is None) == (self.status == "ok"):
            raise ValueError(f"status {self.status!r} with score {self.score!r}: a score goes with ok, and only with ok")
        if not self.detail.isascii():
            # A detail may quote half a surrogate pair of an answer, which no file takes; it becomes its escape, \\ud800.
            object.__setattr__(self, "detail", self.detail.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How an engine samples. Log-probs are those of the distribution that it samples from."""

    max_tokens: int
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: Sequence[str] = ()
    """Texts that end a completion and stay part of it."""
    seed: int = 0
