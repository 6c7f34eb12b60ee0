"""One engine of a fleet as the learner's process sees it: its actor, its requests, and what it is doing now."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tulu.errors import EngineError
from tulu.rollout.engine import STALE
from tulu.rollout.fleet import Ended, EngineState, EngineStatus, Finished, Recovery, Request, Returned, sampled_by
from tulu.rollout.fleet_admission import Admission
from tulu.rollout.fleet_calls import Call, EngineDied, EngineLost, wait_for_all
from tulu.rollout.fleet_replica import Report
from tulu.rollout.pieces import Piece

log = logging.getLogger("tulu")

REPORT_SECONDS = 1.0
"""How long an engine waits for news before it reports that there is none."""
MOST_FAILURES = 3
"""An engine that failed so often in a row, without having sampled in between, is not started again."""


@dataclass(frozen=True)
class Limits:
    """Seconds that an engine may take."""

    start: float = 600.0
    """To load its model. On a GPU this includes the recording of its graphs."""
    sync: float = 300.0
    """For each step of a sync: to pause, to take one parcel, to resume."""
    answer: float = 60.0
    """To answer at all."""
    silent: float = 300.0
    """Between two tokens, while it has requests."""


@dataclass
class Member:
    """An engine's record. Only the methods here change its status."""

    name: str
    make_actor: Callable[[], Any]
    """Gives a Ray actor that is no engine yet."""
    limits: Limits
    begins_with: int
    """The version of the weights in the model's folder, if an engine may sample with them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is set in its process before it loads its model, such as the GPUs that it sees."""
    status: EngineStatus = "starting"
    version: int = STALE
    actor: Any = None
    call: Call | None = None
    """That it starts, or takes the weights that the others have."""
    ear: Call | None = None
    """The report that is awaited."""
    sent: list[Call] = field(default_factory=list)
    """Requests on their way."""
    promised: int = STALE
    """The version of the weights that it is restoring."""
    reading: list[Piece] = field(default_factory=list)
    """The weights that it is restoring, which must stay where they are until it has read them."""
    running: dict[str, Request] = field(default_factory=dict)
    admission: Admission = field(default_factory=Admission)
    tokens: int = 0
    tokens_before: int = 0
    """What its actors sampled before they were restarted."""
    busy_seconds: float = 0.0
    restarts: int = 0
    failures: int = 0
    """In a row."""
    failed_at: float | None = None
    reason: str = ""
    cause: str = ""
    """Of the last failure, as `EngineLost` has it; "" once it has sampled again."""
    seen: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start the process of the engine."""
        self.status, self.version = "starting", STALE
        self.actor = self.make_actor()
        self.call = Call(self.name, "loading its model", self.actor.start.remote(dict(self.environment)), self.limits.start)

    def state(self) -> EngineState:
        """What is known of it."""
        tokens = self.tokens_before + self.tokens
        return EngineState(self.name, self.version, self.status, len(self.running), tokens, self.busy_seconds, self.restarts)

    @property
    def has_sampled(self) -> bool:
        """Whether it ever sampled a token, so that it is no fault of the model or of the machine that it fails."""
        return self.tokens_before + self.tokens > 0

    @property
    def room(self) -> int:
        """How many more requests it would work on."""
        return max(0, self.admission.limit - len(self.running)) if self.status == "ready" else 0

    def send(self, requests: Sequence[Request]) -> None:
        """Let it sample these."""
        self.running |= {request.key: request for request in requests}
        reference = self.actor.submit.remote(list(requests), self.version)
        self.sent.append(Call(self.name, "taking requests", reference, self.limits.answer))

    def cut(self, keys: Sequence[str]) -> None:
        """Let it stop these; what it sampled of them comes with a later report."""
        self.sent.append(Call(self.name, "cutting requests", self.actor.cut.remote(list(keys)), self.limits.answer))

    def restore(self, pieces: Sequence[Piece], version: int) -> None:
        """Bring it the weights that the other engines have."""
        self.status, self.promised, self.reading = "syncing", version, list(pieces)
        reference = self.actor.restore.remote(self.reading, version)
        self.call = Call(self.name, "taking the weights", reference, self.limits.sync * max(1, len(pieces)))

    def ready(self, version: int) -> Recovery | None:
        """It has the current weights, and is sampled from. Returns what it recovered from, if it did."""
        self.status, self.version = "ready", version
        if self.failed_at is None:
            return None
        recovery = Recovery(self.name, self.reason, time.monotonic() - self.failed_at, version)
        self.failed_at = None
        log.info("%s is back after %.1f s, with weights %d (%s)", self.name, recovery.seconds, version, recovery.reason)
        return recovery

    def listen(self) -> None:
        """Wait for its next report."""
        reference = self.actor.report.remote(REPORT_SECONDS)
        self.ear = Call(self.name, "silent", reference, self.limits.answer + REPORT_SECONDS)

    def calls(self) -> list[Call]:
        """All that it has not answered yet."""
        return [*self.sent, *(call for call in (self.call, self.ear) if call is not None)]

    def check_sent(self) -> None:
        """See whether requests reached it. Raises EngineLost if not."""
        still = []
        for call in self.sent:
            if call.answered:
                call.answer()
            else:
                call.check()
                still.append(call)
        self.sent = still

    def heard(self, report: Report) -> list[Ended]:
        """Take over what it reported. Raises EngineLost if it has been silent for too long."""
        now = time.monotonic()
        if report.silent >= self.limits.silent and not report.ended:
            raise EngineLost(self.name, f"it hangs: no token of {report.running} requests for {report.silent:.0f} s")
        if report.tokens > self.tokens:
            self.failures, self.cause = 0, ""
        self.tokens = report.tokens
        # A request that ended here was submitted here; what is left over from before a restart cannot come.
        pairs = [(end, self.running.pop(end.key, None)) for end in report.ended]
        ended = [self._own(end, request) for end, request in pairs if request is not None]
        self.admission.observe(len(self.running), report.waiting, report.tokens, now)
        return ended

    def _own(self, end: Ended, request: Request) -> Ended:
        """The end of a request with the name of this engine, on its tokens too."""
        if isinstance(end, Finished):
            return replace(end, engine=self.name, completion=sampled_by(self.name, end.completion, request.begun))
        begun = end.begun and sampled_by(self.name, end.begun, request.begun)
        return replace(end, engine=self.name, begun=begun)

    def pass_time(self) -> None:
        """Count the time in which it had work."""
        now = time.monotonic()
        if self.running and self.status == "ready":
            self.busy_seconds += now - self.seen
        self.seen = now

    def fail(self, reason: str, later: bool = False, cause: str = "") -> list[Ended]:
        """End its process, start another, or `later` with the next sync, and give its requests back.

        One that fails of the same again and never sampled a token would do so for ever, and is not started.
        """
        lasting = bool(cause) and cause == self.cause and not self.has_sampled
        self.cause = cause
        last = lasting or self.failures >= MOST_FAILURES
        then = "that is too often" if last else "it is started again"
        log.warning("%s failed: %s; %s, and its %d requests are given back", self.name, reason, then, len(self.running))
        self.failed_at = self.failed_at if self.failed_at is not None else time.monotonic()
        self.reason = reason
        self.failures += 1
        self.restarts += 1
        self.tokens_before, self.tokens = self.tokens_before + self.tokens, 0
        told = f"{self.name}: {reason}"
        returned: list[Ended] = [Returned(key, request.begun, told, self.name) for key, request in self.running.items()]
        self.end()
        if last:
            self.status = "dead"
        elif later:
            self.status = "asleep"
        else:
            self.start()
        return returned

    def end(self) -> None:
        """End its process."""
        import ray

        self.running, self.sent, self.call, self.ear, self.version = {}, [], None, None, STALE
        self.reading = []
        actor, self.actor = self.actor, None
        if actor is not None:
            ray.kill(actor, no_restart=True)


def start_all(members: Sequence[Member]) -> None:
    """Start the engines, and wait until each has loaded its model. Raises EngineError if one cannot.

    Where the process of one dies meanwhile, another is started in its place, as often as later.
    """
    for member in members:
        member.start()
    waited = members
    while waited:
        _, lost = wait_for_all([call for member in waited for call in member.calls()])
        hopeless = [error for error in lost.values() if not isinstance(error, EngineDied)]
        waited = [member for member in waited if member.name in lost]
        if hopeless or any(member.failures == MOST_FAILURES for member in waited):
            raise EngineError("; ".join(map(str, lost.values())))
        for member in waited:
            member.fail(lost[member.name].reason)


def why_hopeless(members: Sequence[Member]) -> str:
    """Why no engine will sample any more, "" if one may.

    Where one failed twice of the same, and all others have failed of that too and none ever sampled a token, none is waited for.
    """
    dead = [member for member in members if member.status == "dead"]
    causes = {member.cause for member in dead if member.cause}
    alike = any(all(one.cause == cause and not one.has_sampled for one in members) for cause in causes)
    if len(dead) < len(members) and not alike:
        return ""
    told = "; ".join(f"{member.name}: {member.reason}" for member in members)
    if alike:
        told = f"{', '.join(member.name for member in members)}: {dead[0].reason}"
    return f"every engine failed too often and none is left ({told})"
