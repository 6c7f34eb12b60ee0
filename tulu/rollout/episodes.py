"""Episodes: completions of several turns, between which an environment acts. A fleet that wraps a fleet.

    reset ──▶ sampling ──▶ calling ──▶ sampling ──▶ ... ──▶ scoring ──▶ Finished
              (inner fleet) (environment)                   (get_reward)

The stream of rollouts sees a request and its end, as from any fleet, so that deadlines, re-dispatch and the journal hold for
episodes as they are. Inside, each turn continues the tokens of those before: they are the `begun` of an inner request, which no
engine renders again. What tools and users said stands among them as tokens that are not trained and carry no log-prob.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from tulu import deadlines
from tulu.config.parts import EnvironmentSettings
from tulu.environments.authoring import Description
from tulu.environments.nursery import Failed, Nursery
from tulu.environments.turns import ToolCall, TooLong, Turns
from tulu.errors import DataError, RecipeError
from tulu.rollout.episode import Doing, Episode, verdict_of
from tulu.rollout.fleet import Ended, EngineState, Finished, Fleet, Recovery, Request, Returned, SyncReport, joined
from tulu.rollout.local_fleet import LocalFleet
from tulu.types import Completion, Finish, Verdict

POLL_SECONDS = 0.01
"""How long an engine is waited for at a time while environments work."""


class Episodes:
    """Any fleet as one that samples episodes."""

    def __init__(
        self,
        inner: Fleet,
        settings: EnvironmentSettings,
        turns: Turns,
        description: Description,
        rows: Callable[[str], Mapping[str, Any]],
        tail: Callable[[str], str] | None = None,
    ) -> None:
        """`rows` gives a problem's data row, `tail` the template's text behind the user's message where `reset` returns texts."""
        self.inner, self.settings, self.turns, self.description = inner, settings, turns, description
        self.rows, self.tail = rows, tail
        self.is_local = isinstance(inner, LocalFleet)
        """Whether the engine works in this process, while `collect` waits for it."""
        self._nursery = Nursery(settings.path, settings.options, settings.call_seconds)
        self._threads = ThreadPoolExecutor(settings.parallel or os.cpu_count() or 1, "environments")
        self._live: dict[str, Episode] = {}
        self._jobs: dict[Future[Any], tuple[Episode, Callable[[Any], None]]] = {}
        self._ended: list[Ended] = []

    # -- the protocol of a fleet -------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The version of the engines' weights."""
        return self.inner.version

    def states(self) -> list[EngineState]:
        """Those of the engines."""
        return self.inner.states()

    def submit(self, requests: Sequence[Request]) -> None:
        """Begin these episodes, or go on with those that were cut."""
        for request in requests:
            episode = self._live.get(request.key)
            if episode is None:
                self._make_room()
                # A state that is gone cannot be acted on, so what another session knew of the episode is no use.
                episode = self._live[request.key] = Episode(replace(request, begun=None), deadlines.now())
                self._ask(episode, "reset", partial(self._reset, episode), partial(self._was_reset, episode))
            episode.waits = True
            if episode.over is not None:
                self._hand_over(episode)
        self._sample()

    def collect(self, timeout: float) -> list[Ended]:
        """What ended. An engine in this process works until all episodes ended, each of their turns sampled in one batch."""
        until = deadlines.now() + timeout
        while True:
            if self._jobs:
                # In this process a batch is worth waiting for, and must not depend on which tool was faster.
                wait(self._jobs, timeout=None if self.is_local else 0)
            self._settle()
            self._expire()
            self._sample()
            left = until - deadlines.now()
            patience = max(0.0, min(left, POLL_SECONDS if self._jobs else left))
            for end in self.inner.collect_call() if isinstance(self.inner, LocalFleet) else self.inner.collect(patience):
                self._sampled(end)
            idle = not any(one.waits for one in self._live.values())
            if idle or (not self.is_local and (self._ended or deadlines.now() >= until)):
                ended, self._ended = self._ended, []
                return ended

    def cut(self, keys: Sequence[str]) -> None:
        """Give these back, with what they have. Their environments stay as they are until they are asked for again."""
        sampling = []
        for key in keys:
            episode = self._live.get(key)
            if episode is not None and episode.waits:
                if episode.state == "sampling":
                    sampling.append(key)
                else:
                    self._give_back(episode, "it was cut")
        self.inner.cut(sampling)

    def room(self) -> int:
        """As many as the engines have, and as there may be environments; those that came back wait to be asked for again."""
        asked = [one.state for one in self._live.values() if one.waits]
        return max(0, min(self.inner.room() - len(asked) + asked.count("sampling"), self.settings.episodes - len(asked)))

    def acting(self, keys: Sequence[str]) -> dict[str, Doing]:
        """Which of these wait for their environments: in what, and since when. This may be asked from any thread."""
        found = {key: one for key in keys if (one := self._live.get(key)) is not None and one.state == "acting"}
        began = {key: one.job is None or one.job.running() or one.job.done() for key, one in found.items()}
        behind = ", behind other episodes: rlvr.env.parallel"
        return {key: (one.doing + ("" if began[key] else behind), one.doing_since) for key, one in found.items()}

    def sync(self, weights: Iterable[tuple[str, Tensor]], version: int) -> SyncReport:
        """Hand the weights to the engines."""
        return self.inner.sync(weights, version)

    def rest(self) -> None:
        """Let the engines give their memory back."""
        self.inner.rest()

    def check(self) -> list[Recovery]:
        """That of the engines."""
        return self.inner.check()

    def close(self) -> None:
        """End environments and engines."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._nursery.close()
        self.inner.close()

    # -- sampling ----------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        """Give the engines every turn that can be sampled."""
        ready = [one for one in self._live.values() if one.state == "ready" and one.waits]
        if not ready:
            return
        requests = []
        for episode in ready:
            request, done = episode.request, len(episode.so_far.tokens)
            rest = request.params.max_tokens - done
            if self.is_local and done:
                # An engine in this process samples one call for each max_tokens. Equal ones are made by rounding down to a power
                # of 2; a turn that reaches it goes on with what is left.
                rest = 1 << (rest.bit_length() - 1)
            params = replace(request.params, max_tokens=done + rest)
            requests.append(replace(request, params=params, begun=episode.so_far if done else None))
            episode.state = "sampling"
        self.inner.submit(requests)

    def _sampled(self, end: Ended) -> None:
        """An engine ended a turn, or gave it back."""
        episode = self._live.get(end.key)
        if episode is None or episode.state != "sampling" or episode.over is not None:
            # Its deadline passed while an engine worked on it.
            return
        episode.engine = end.engine
        if isinstance(end, Returned):
            if end.begun is not None and len(end.begun.tokens) > len(episode.so_far.tokens):
                episode.so_far = end.begun
            episode.state = "ready"
            self._give_back(episode, end.reason)
            return
        episode.so_far, most = end.completion, episode.request.params.max_tokens
        finish = end.completion.finish
        if finish == "length" and len(episode.so_far.tokens) < most:
            episode.state = "ready"
            return
        if finish == "length" and not self.description.drives:
            self._over(episode, "length")
            return
        episode.turn += 1
        calls = self.turns.read(episode.so_far.tokens[episode.turn_start :], episode.turn)
        if self.description.drives:
            calls = [] if finish == "length" else calls
            turn = episode.told(self.turns, calls, finish)
            reply = partial(episode.reply, turn, self.settings)
            self._ask(episode, "what it says to a turn", reply, partial(self._replied, episode, calls, finish))
        elif not calls:
            self._over(episode, "stop")
        elif episode.turn == self.settings.turns:
            self._over(episode, "length")
        else:
            names = ", ".join(dict.fromkeys(call.name for call in calls))
            act, render = partial(episode.act, calls, self.settings), partial(self.turns.after, calls)
            self._ask(episode, names, act, lambda results: self._go_on(episode, partial(render, results)))

    def _give_back(self, episode: Episode, reason: str) -> None:
        episode.waits = False
        begun = episode.so_far if episode.so_far.tokens else None
        self._ended.append(Returned(episode.request.key, begun, reason, episode.engine))

    # -- acting ------------------------------------------------------------------------------------------------

    def _ask(self, episode: Episode, doing: str, job: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Let an episode's environment work in a thread, and go on with what comes of it."""
        future = self._threads.submit(job)
        episode.begin(doing, future)
        self._jobs[future] = (episode, then)

    def _settle(self) -> None:
        """Go on with the episodes whose environments have answered."""
        for future in [one for one in self._jobs if one.done()]:
            episode, then = self._jobs.pop(future)
            if episode.over:
                self._end(episode)
                continue
            try:
                then(future.result())
            except Failed as fault:
                self._fail(episode, str(fault), fault.late)

    def _reset(self, episode: Episode) -> str | None:
        """Start an environment with its row, in a thread."""
        episode.process, row = self._nursery.start(), self.rows(episode.request.problem_id)
        if not self.description.drives:
            return episode.process.reset(row, self.settings.call_seconds)
        # One that drives sets up its task and its servers first, and is told which tools the prompt has.
        return episode.process.reset({**row, "tools": list(self.description.tools)}, self.settings.turn_seconds)

    def _was_reset(self, episode: Episode, text: str | None) -> None:
        episode.asked = self.description.drives
        if self.tail is not None:
            tail, drives = self.tail(episode.request.problem_id), self.description.drives
            self._go_on(episode, partial(self.turns.appended, text or "", tail, not drives))
        elif text is not None:
            raise DataError(
                f"env: {self.settings.path}: reset returned a text for row {episode.request.problem_id} and None for the rows "
                "that were tried before anything was sampled\n"
                "Prompts end where a text may follow only if one of those has a text: let reset return '' instead of None."
            )
        else:
            episode.state = "ready"

    def _replied(self, episode: Episode, calls: Sequence[ToolCall], finish: Finish, further: list[dict[str, Any]] | None) -> None:
        """Go on with what tools and users said, or end where nobody said anything."""
        episode.asked = further is not None
        if further is None:
            self._over(episode, finish)
        elif finish == "length" or episode.turn == self.settings.turns:
            self._over(episode, "length")
        else:
            self._go_on(episode, partial(self.turns.further, calls, further))

    def _go_on(self, episode: Episode, render: Callable[..., list[int]]) -> None:
        """Put what others said behind an episode, unless the template refuses it."""
        try:
            tokens = render(most=episode.request.params.max_tokens - len(episode.so_far.tokens))
        except TooLong:
            self._over(episode, "length")
        except RecipeError as error:
            self._fail(episode, str(error))
        else:
            self._append(episode, tokens)

    def _append(self, episode: Episode, tokens: Sequence[int]) -> None:
        """Put what others said behind an episode; where no room is left for a further turn, it ends without that."""
        if len(episode.so_far.tokens) + len(tokens) >= episode.request.params.max_tokens:
            self._over(episode, "length")
            return
        said = Completion(tokens, [False] * len(tokens), [0.0] * len(tokens))
        episode.so_far = joined(episode.so_far, said)
        episode.turn_start = len(episode.so_far.tokens)
        episode.state = "ready"

    # -- ends --------------------------------------------------------------------------------------------------

    def _over(self, episode: Episode, finish: Finish) -> None:
        """The last turn is done; the environment says what the episode is worth, if it scores."""
        if self.description.scores and episode.process is not None:
            score = partial(episode.score, self.settings)
            self._ask(episode, "get_reward", score, lambda reward: self._finish(episode, finish, verdict_of(reward)))
        else:
            self._finish(episode, finish, None)

    def _fail(self, episode: Episode, why: str, late: bool = False) -> None:
        """An episode has no score, through no fault that is known to be the policy's: it is masked, and counted."""
        self._finish(episode, "data", Verdict(None, "timeout" if late else "error", why))

    def _finish(self, episode: Episode, finish: Finish, verdict: Verdict | None) -> None:
        completion = replace(episode.so_far, finish=finish, verdict=verdict)
        episode.over = Finished(episode.request.key, completion, episode.engine, deadlines.now() - episode.began)
        self._end(episode)
        if episode.waits:
            self._hand_over(episode)

    def _hand_over(self, episode: Episode) -> None:
        assert episode.over is not None
        self._ended.append(episode.over)
        del self._live[episode.request.key]

    def _end(self, episode: Episode) -> None:
        """End an episode's process, if it has one by now."""
        if episode.process is not None:
            self._threads.submit(episode.process.kill)

    def _expire(self) -> None:
        """End the episodes whose time is over, and forget those that nobody asks for any more."""
        before = deadlines.now() - self.settings.episode_seconds
        late = [one for one in self._live.values() if one.began < before]
        self.inner.cut([one.request.key for one in late if one.state == "sampling"])
        for episode in late:
            if episode.over is None:
                self._fail(episode, f"the episode took longer than {self.settings.episode_seconds:g} s", late=True)
            self._live.pop(episode.request.key, None)

    def _make_room(self) -> None:
        """Where no further environment may begin, forget the oldest that came back and was not asked for again."""
        spare = [one for one in self._live.values() if not one.waits]
        if spare and len(self._live) >= self.settings.episodes:
            self._fail(spare[0], "its environment was needed for another episode")
            del self._live[spare[0].request.key]


def acting_in(fleet: Fleet, keys: Sequence[str]) -> dict[str, Doing]:
    """Which of these requests wait for environments, where a fleet has any."""
    return fleet.acting(keys) if isinstance(fleet, Episodes) else {}
