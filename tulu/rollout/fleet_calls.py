"""Calls to engines in other processes: each has a deadline, and while it is waited for the log says for whom and since when."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tulu import deadlines
from tulu.config.cluster import in_one_line
from tulu.config.shortage import is_shortage, say_engine_shortage
from tulu.errors import EngineError, EngineMissing
from tulu.rollout.sync import WeightsRefused

log = logging.getLogger("tulu")

TELL_SECONDS = 10.0
"""A wait that is longer is told, and told again after as long."""


class EngineLost(Exception):
    """An engine cannot be used any more."""

    def __init__(self, engine: str, reason: str, refused: bool = False, hangs: bool = False, cause: str = "") -> None:
        super().__init__(f"{engine}: {reason}")
        self.engine = engine
        self.reason = reason
        self.hangs = hangs
        """Whether its process is there and does not answer."""
        self.refused = refused
        """Whether it refused weights because of what they are. Another engine would say the same of them."""
        self.cause = cause
        """What went wrong, in the same words whenever it is the same; "" where a further try may help, as after a kill."""

    def repeats(self, cause: str) -> bool:
        """Whether this is what the engine failed of before, so that to start it again is no cure."""
        return bool(cause) and cause == self.cause


class EngineBroken(EngineError):
    """What an engine says that cannot go on."""

    def __init__(self, cause: str, where: str = "") -> None:
        super().__init__(cause, where)
        self.cause = cause
        """In the same words whenever it is the same; "" where its own process does not know."""
        self.where = where
        """What else is to be told, such as the place of its log."""

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.cause, self.where)))


@dataclass
class Call:
    """One call that was made and not answered yet."""

    engine: str
    what: str
    """What the engine does, as in `engine-1 has been loading the model for 12 s`."""
    reference: Any
    limit: float
    """Seconds that it may take."""
    since: float = field(default_factory=deadlines.now)
    told: float = 0.0

    @property
    def answered(self) -> bool:
        """Whether the answer is there. This does not wait."""
        import ray

        return bool(ray.wait([self.reference], timeout=0)[0])

    def check(self) -> None:
        """Say how long this has taken, every TELL_SECONDS. Raises EngineLost if that is too long."""
        waited = deadlines.now() - self.since
        if waited >= self.limit:
            raise EngineLost(self.engine, f"it hangs: it has been {self.what} for {waited:.0f} s", hangs=True)
        if waited - self.told >= TELL_SECONDS:
            self.told = waited
            log.info("%s has been %s for %.0f s (limit: %.0f s)", self.engine, self.what, waited, self.limit)

    def answer(self) -> Any:
        """The answer, which is there. Raises EngineLost if the engine failed or its process died."""
        import ray
        from ray import exceptions

        try:
            return ray.get(self.reference, timeout=self.limit)
        except exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, EngineMissing):
                raise EngineMissing(str(cause)) from None
            if isinstance(cause, EngineError):
                told = cause.cause if isinstance(cause, EngineBroken) else str(cause)
                raise EngineLost(self.engine, str(cause), refused=isinstance(cause, WeightsRefused), cause=told) from None
            raise EngineLost(self.engine, failure(cause), cause=failure(cause)) from None
        except exceptions.RayError as error:
            raise EngineDied(self.engine, death(error)) from None


def wait_for_all(calls: Iterable[Call]) -> tuple[dict[str, Any], dict[str, EngineLost]]:
    """Wait for the answers of several engines; what each answered, and which of them are lost."""
    import ray

    answers: dict[str, Any] = {}
    lost: dict[str, EngineLost] = {}
    open_calls = list(calls)
    while open_calls:
        ray.wait([call.reference for call in open_calls], num_returns=len(open_calls), timeout=_slice(open_calls))
        still = []
        for call in open_calls:
            try:
                if call.answered:
                    answers[call.engine] = call.answer()
                else:
                    call.check()
                    still.append(call)
            except EngineLost as error:
                lost[call.engine] = error
        open_calls = still
    return answers, lost


def _slice(calls: list[Call]) -> float:
    """Until the next deadline or the next time that a wait is told."""
    now = deadlines.now()
    return max(0.0, min(min(call.limit, call.told + TELL_SECONDS) - (now - call.since) for call in calls)) + 0.001


def failure(cause: BaseException) -> str:
    """What went wrong in an engine, in one line."""
    if is_shortage(cause):
        return say_engine_shortage(cause)
    return f"it failed ({said(cause)})"


def said(error: BaseException) -> str:
    """The name and the words of an error, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def death(error: Exception) -> str:
    """That the process of an engine is gone, in one line of all that Ray says."""
    first = in_one_line(error)
    if is_shortage(error):
        return f"its process was ended because the machine ran out of memory ({first})"
    return f"its process died ({first.rstrip('.')}), as one does that is killed where memory runs out"


class EngineDied(EngineLost):
    """The process of an engine is gone, which says nothing of what it was to do: another may do it."""
