"""A process that stands by, with all that an engine needs imported, so that a lost engine is back sooner."""

import logging
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("tulu")

CALM_SECONDS = 1.0
"""How long no engine may have been starting before a process is made, so that it takes no core from one that starts."""
MOST_DEATHS = 3
"""After so many deaths in a row none is made any more; the machine may be short of memory."""


class Standby:
    """At most one Ray actor that is no engine yet, but has imported what one needs, which takes vLLM 10 s of a core.

    Its process holds no model and no GPU, but about as much memory as Python with torch and vLLM; without GPUs twice that, since
    its engine core is forked from another process of this kind (`vllm_forks`).
    """

    def __init__(self, make_actor: Callable[[], Any] | None) -> None:
        """None if nothing stands by, as in a cluster, where an engine's place is known only when it starts."""
        self.make_actor = make_actor
        self.actor: Any = None
        self.until_called: Any = None
        """Ray's reference to an answer that comes when the process is called, or when it has died."""
        self.calm_since: float | None = None
        self.deaths = 0

    def tend(self, calm: bool) -> None:
        """Make the process once there has been calm for long enough; note if it died. This does not wait."""
        now = time.monotonic()
        if self.actor is not None and self._died():
            self.actor = None
            self.deaths += 1
            self.calm_since = None
            log.debug("the process that stood by died, for the %d. time", self.deaths)
        if not calm:
            self.calm_since = None
            return
        self.calm_since = now if self.calm_since is None else self.calm_since
        due = self.actor is None and self.deaths < MOST_DEATHS and now - self.calm_since >= CALM_SECONDS
        if due and self.make_actor is not None:
            self.actor = self.make_actor()
            self.until_called = self.actor.stand_by.remote()

    def take(self) -> Any:
        """The actor, to be an engine from now on; None if none that lives stands by."""
        if self.actor is None or self._died():
            return None
        actor, self.actor, self.deaths = self.actor, None, 0
        return actor

    def end(self) -> None:
        """End the process."""
        import ray

        actor, self.actor, self.make_actor = self.actor, None, None
        if actor is not None:
            ray.kill(actor, no_restart=True)

    def _died(self) -> bool:
        import ray

        return bool(ray.wait([self.until_called], timeout=0)[0])
