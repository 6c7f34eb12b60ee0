"""What a run needs of its environment: its tools in every prompt, and a fleet that samples episodes."""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu.config.parts import EnvironmentSettings
from tulu.config.tasksets import VERIFIERS, taskset_files
from tulu.data.problems import Problems
from tulu.data.tasksets import OPENS
from tulu.environments.authoring import Description
from tulu.environments.nursery import Failed, Nursery, describe
from tulu.environments.turns import Turns
from tulu.errors import RecipeError
from tulu.rollout.episodes import Episodes
from tulu.rollout.fleet import Fleet
from tulu.rollout.status import Status
from tulu.types import Message, Problem
from tulu.user_code import source_files
from tulu.verifiers.reward_model import NAME as NO_VERIFIER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("tulu")

TRIED = 4
"""Rows that an episode is begun with before anything is sampled, to see whether `reset` returns texts."""


class Acting:
    """The environment of a recipe. The main process alone asks it; the others learn what they need with the problems."""

    def __init__(
        self,
        settings: EnvironmentSettings,
        tokenizer: "PreTrainedTokenizerBase",
        status: Status | None = None,
        verifier: str | None = None,
    ) -> None:
        """`status` is told what is waited for; `verifier` is the one that the recipe names for every row."""
        self.settings, self.tokenizer, self.status, self.verifier = settings, tokenizer, status or Status(), verifier
        self._description: Description | None = None
        self._turns: Turns | None = None
        self._splits: bool | None = None
        """Whether prompts end at the user's message; None until rows have begun episodes."""

    @property
    def scores(self) -> bool:
        """Whether its episodes bring their score along, as far as the class has been asked."""
        return self._description is not None and self._description.scores

    def digest(self) -> str:
        """32 hex digits over the file of the class, what it imports from beside it, and its options."""
        place, _, name = self.settings.path.partition(":")
        file = Path(place).expanduser()
        files = taskset_files(name) if place == VERIFIERS else source_files(file) if file.is_file() else []
        digest = hashlib.blake2b(digest_size=16)
        for one in files:
            digest.update(one.read_bytes())
        if not files:
            digest.update(self.settings.path.encode())
        digest.update(repr((self.settings.path.rpartition("/")[2], sorted(self.settings.options.items()))).encode())
        return digest.hexdigest()

    def load(self, read: Callable[..., Problems]) -> Problems:
        """The problems that `read` reads, with the environment's tools in their prompts.

        It may be called again for other problems that the same engines are to be asked, such as those of `eval_task`. Raises
        RecipeError where the class, the first episode or the template cannot be used, before anything is sampled.
        """
        description, turns = self._known()
        if description.scores and self.verifier is not None:
            raise RecipeError(
                f"verifier: {self.verifier} would grade nothing: the environment {self.settings.path} scores its episodes; "
                "remove verifier, or the environment's get_reward"
            )
        # Rows that an environment scores need no ground truth: only their prompts are read.
        scored: dict[str, Any] = {"verifier": NO_VERIFIER, "with_reward_model": True} if description.scores else {}
        problems = read(tools=description.tools, **scored)
        has_texts = any(text is not None for text in self._first_texts(problems))
        if has_texts and self._splits is False:
            raise RecipeError(
                f"env: {self.settings.path}: reset returns a text for rows of eval_task and None for those of data; "
                "let it return '' instead of None, so that the prompts of all rows end where a text may follow"
            )
        self._splits = self._splits or has_texts
        return self._split(problems, turns) if self._splits else problems

    def _known(self) -> tuple[Description, Turns]:
        """What the class is, and its turns in this template; asked once, because a process is started for it."""
        if self._description is None or self._turns is None:
            with self.status.waiting(f"the environment {self.settings.path} to be imported"):
                self._description = description = describe(self.settings.path, self.settings.options)
            self._turns = turns = Turns(self.tokenizer, description.tools)
            turns.check()
            if description.speaks:
                turns.check_users()
            names = ", ".join(turns.names) or "none"
            log.info("environment %s: tools %s; %s", self.settings.path, names, _scorer(description))
        return self._description, self._turns

    def fleet(self, inner: Fleet, problems: Sequence[Problem]) -> Episodes:
        """The engines of `inner` as a fleet that samples episodes; `load` must have been called."""
        turns, description = self._turns, self._description
        assert turns is not None
        assert description is not None
        places = {problem.id: place for place, problem in enumerate(problems)}

        def row(name: str) -> Mapping[str, Any]:
            return problems[places[name]].row

        def tail(name: str) -> str:
            return turns.split_prompt(problems[places[name]].messages)[1]

        with self.status.waiting(f"the environment {self.settings.path} to be imported"):
            return Episodes(inner, self.settings, turns, description, row, tail if self._splits else None)

    def _first_texts(self, problems: Problems) -> list[str | None]:
        """What `reset` returns for some rows, evenly over all: where one is a text, prompts end at the user's message.

        All task sets of a package begin alike, so that one of their rows is enough.
        """
        drives = self._description is not None and self._description.drives
        count = 1 if drives else min(TRIED, len(problems))
        tried = [problems[number * len(problems) // count] for number in range(count)]
        together = min(self.settings.parallel or os.cpu_count() or 1, self.settings.episodes, count)
        whom = f"the environment {self.settings.path} (reset of {'the first row' if count == 1 else f'{count} rows'})"
        with self.status.waiting(whom), ThreadPoolExecutor(together) as threads:
            nursery = Nursery(self.settings.path, self.settings.options, self.settings.call_seconds)
            try:
                texts = list(threads.map(lambda problem: self._first_text(nursery, problem, drives), tried))
            finally:
                nursery.close()
        # Only the first row must begin: a class that cannot begin with it is wrong, of others a row may be.
        for problem, text in zip(tried, texts, strict=True):
            if isinstance(text, Failed):
                told = f"env: {self.settings.path} cannot begin with row {problem.id}"
                if problem is tried[0]:
                    raise RecipeError(f"{told}: {text}") from text
                log.warning("%s (%s): its episodes are masked", told, text)
        return [text for text in texts if not isinstance(text, Failed)]

    def _first_text(self, nursery: Nursery, problem: Problem, drives: bool) -> str | Failed | None:
        """That of one row, or why there is none."""
        try:
            process = nursery.start()
            text = process.reset(problem.row, self.settings.turn_seconds if drives else self.settings.call_seconds)
            if drives:
                # What it started ends in good order.
                process.stop(self.settings.turn_seconds)
            process.kill()
            return text
        except Failed as fault:
            return fault

    def _split(self, problems: Problems, turns: Turns) -> Problems:
        """The problems with prompts that end with the user's message, behind which each episode has a text of its own."""
        cut = [replace(problem, prompt=turns.split_prompt(_unsaid(problem.messages))[0]) for problem in problems]
        return Problems(cut, problems.report)


def _unsaid(messages: Sequence[Message]) -> list[Message]:
    """The messages without what stands for the words of a user whom an environment lets speak first."""
    return [{**message, "content": "" if message["content"] == OPENS else message["content"]} for message in messages]


def _scorer(description: Description) -> str:
    return "it scores its episodes" if description.scores else "verifiers score the last turn"
