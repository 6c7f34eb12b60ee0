"""A fleet: the engines that RLVR samples with, seen as one thing that takes single requests and hands back what ended.

`RolloutEngine` answers a batch and makes its caller wait for the longest completion in it. A fleet samples in the background, so
that its caller can train on what has ended while the rest goes on. `LocalFleet` is one engine in the learner's process;
`RayFleet` is any number of vLLM engines in processes of their own.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from torch import Tensor

from tulu.errors import EngineError
from tulu.rollout.sampling import stable_seed
from tulu.types import Completion, SamplingParams


@dataclass(frozen=True, slots=True)
class Request:
    """One completion that is wanted."""

    key: str
    """Unique for ever, and the name under which it comes back. RLVR uses f"{position}:{sample}"."""
    problem_id: str
    prompt: Sequence[int]
    params: SamplingParams
    """`max_tokens` counts the tokens in `begun` too. `seed` is that of the step, the same for the whole group."""
    sample: int = 0
    """Its place within its group, from 0. Seed, problem and place together decide which random numbers it is drawn with."""
    samples: int = 1
    """The size of the group. The transformers engine draws a whole group at once."""
    begun: Completion | None = None
    """What was sampled of it before, with log-probs and versions; sampling goes on behind it."""

    @property
    def seed(self) -> int:
        """The seed of its random numbers. A part that continues another draws with numbers of its own."""
        continued = (len(self.begun.tokens),) if self.begun is not None and self.begun.tokens else ()
        return stable_seed(self.params.seed, self.problem_id, self.sample, *continued)


@dataclass(frozen=True, slots=True)
class Finished:
    """A request whose completion ended."""

    key: str
    completion: Completion
    """All of its tokens, those that had begun before included. `versions` names the weights of every span of them."""
    engine: str
    seconds: float = 0.0
    """From the submission to the end."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A request that did not end: it was cut, or its engine died. It may be submitted again, with `begun` as it is here."""

    key: str
    begun: Completion | None
    """What is known to have been sampled of it; None if nothing is."""
    reason: str
    engine: str = ""


Ended = Finished | Returned

EngineStatus = Literal["ready", "starting", "stale", "syncing", "asleep", "dead"]


@dataclass(frozen=True, slots=True)
class EngineState:
    """What is known of one engine now."""

    name: str
    version: int
    """The version of the weights it samples with; STALE while it may not sample."""
    status: EngineStatus
    """Only a `ready` engine is sampled from. One that is `asleep` gave its memory to the learner until the next sync. One that
    failed is `starting` again at once; `dead` is one that failed too often."""
    running: int
    """Requests that it works on."""
    tokens: int = 0
    """Tokens it has sampled so far, as far as they were collected."""
    busy_seconds: float = 0.0
    """Time in which it had at least one request. What is missing to the time that passed is its idle time."""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """An engine that failed and samples again."""

    engine: str
    reason: str
    seconds: float
    """From the moment that the failure was seen to the moment that the engine held the current weights again."""
    version: int


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one transfer of new weights moved, and how long each part took."""

    version: int
    tensors: int = 0
    bytes: int = 0
    seconds: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part, which overlap. In the learner: `pause`, `gather`, `pack` and `send` (to GPUs), `shelve`, `resume`. In the
    engines, of which the slowest counts: `receive`, `verify`, `load`."""
    engines: Sequence[str] = ()
    """The engines that hold these weights now and proved it by their checksums."""
    way: str = ""
    """How they came, as the log names it."""


class Fleet(Protocol):
    """One or more engines that work on single requests in the background. Every method returns within a deadline or raises."""

    @property
    def version(self) -> int:
        """The version of the weights that were synced last. STALE before that, unless the engines began with the learner's."""
        ...

    def states(self) -> list[EngineState]:
        """What is known of each engine, without waiting."""
        ...

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin to sample these, on engines that hold the current weights.

        More requests than there is `room` for are accepted and wait here. Raises EngineError if one does not fit an engine.
        """
        ...

    def collect(self, timeout: float) -> list[Ended]:
        """Hand over what ended since the last call; waits at most `timeout` seconds for the first, and returns [] if none ended.

        The requests of an engine that failed come back as Returned; the engine is started again without being asked.
        """
        ...

    def cut(self, keys: Sequence[str]) -> None:
        """Stop working on these requests. Those that have not ended by then come back by `collect` as Returned."""
        ...

    def room(self) -> int:
        """How many more requests the engines would work on now; 0 while none is ready."""
        ...

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Sample with these weights from now on, each with its name in a published checkpoint.

        Requests in flight go on; their later tokens carry the new version. Raises EngineError if the engines refuse the weights,
        and if none is left.
        """
        ...

    def rest(self) -> None:
        """The learner trains now: engines on its GPUs give their memory back until the next sync. Requests are kept."""
        ...

    def check(self) -> list[Recovery]:
        """Bring failed engines back as far as that goes without waiting, and return those that are back since the last call.

        `collect` does the same; this is for a caller that has nothing to collect. Raises EngineError if no engine comes back.
        """
        ...

    def close(self) -> None:
        """End the engines, and what was started for them."""
        ...


def joined(begun: Completion | None, rest: Completion) -> Completion:
    """A completion and what was sampled behind it, as one. A span whose version is that of the span before it is not named."""
    if begun is None or not begun.tokens:
        return rest
    spans = list(begun.versions)
    for first, version in rest.versions:
        if not spans or spans[-1][1] != version:
            spans.append((len(begun.tokens) + first, version))
    logps = None
    if begun.sampler_logps is not None and rest.sampler_logps is not None:
        logps = [*begun.sampler_logps, *rest.sampler_logps]
    engines = (*begun.engines, *((len(begun.tokens) + first, engine) for first, engine in rest.engines))
    both = [*begun.tokens, *rest.tokens], [*begun.trained, *rest.trained]
    return Completion(*both, logps, rest.finish, spans, engines=engines)


def sampled_by(engine: str, completion: Completion, begun: Completion | None) -> Completion:
    """The completion with the name of the engine that sampled what stands behind that which had `begun`."""
    before, first = ((), 0) if begun is None else (begun.engines, len(begun.tokens))
    if first >= len(completion.tokens) or (before and before[-1][1] == engine):
        return replace(completion, engines=before)
    return replace(completion, engines=(*before, (first, engine)))


def prepared(request: Request, max_length: int | None = None) -> Request | Finished:
    """The request as an engine takes it, or the completion if what had begun is whole already.

    Of what had begun, the last tokens are sampled anew where a stop text might have begun in them, because an engine looks for
    stop texts only in what it samples itself. Raises EngineError if the request does not fit into `max_length` tokens.
    """
    params, begun = request.params, request.begun
    if not request.prompt or params.max_tokens < 1:
        raise EngineError(f"{request.problem_id}: a prompt of {len(request.prompt)} tokens, max_tokens {params.max_tokens}")
    if max_length is not None and len(request.prompt) + params.max_tokens > max_length:
        raise EngineError(
            f"{request.problem_id}: a prompt of {len(request.prompt)} tokens and max_tokens {params.max_tokens} exceed "
            f"the {max_length} tokens that the engine holds; lower max_tokens or max_prompt"
        )
    if begun is None or not begun.tokens:
        return replace(request, begun=None)
    if len(begun.tokens) >= params.max_tokens:
        return Finished(request.key, replace(first_tokens(begun, params.max_tokens), finish="length"), "")
    within_stop = max((len(text.encode()) for text in params.stop), default=1) - 1
    return replace(request, begun=first_tokens(begun, len(begun.tokens) - within_stop))


def prepare_all(requests: Sequence[Request], known: Container[str], max_length: int | None = None) -> list[Request | Finished]:
    """Each request as `prepared` makes it. Raises EngineError if one cannot be sampled or has a key that is known already."""
    keys: set[str] = set()
    for request in requests:
        if request.key in known or request.key in keys:
            raise EngineError(f"request {request.key} was submitted twice")
        keys.add(request.key)
    return [prepared(request, max_length) for request in requests]


def first_tokens(completion: Completion, count: int) -> Completion:
    """A completion's first tokens, with the versions and engines that they were sampled with."""
    kept = slice(0, max(0, count))
    return Completion(
        tokens=list(completion.tokens)[kept],
        trained=list(completion.trained)[kept],
        sampler_logps=None if completion.sampler_logps is None else list(completion.sampler_logps)[kept],
        finish=completion.finish,
        versions=[(first, version) for first, version in completion.versions if first < count],
        engines=tuple((first, engine) for first, engine in completion.engines if first < count),
    )
