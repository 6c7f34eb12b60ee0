"""What `tulu evaluate MODEL --suite NAME` is asked for, and everything that this machine lacks for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tulu.config.locate import policy_problem
from tulu.config.options import EngineName
from tulu.config.parts import Source
from tulu.config.suite_needs import NAMED_ALONE, ON_THE_COMMAND_LINE, lacks
from tulu.config.suites import Suite, SuiteTask
from tulu.errors import RecipeError


@dataclass(frozen=True)
class SuiteRequest:
    """Which model does which tasks, and what they need of this machine."""

    model: str
    suite: Suite
    template: str
    folder: Path
    engine: EngineName = "auto"
    tasks: tuple[str, ...] = ()
    """Tasks and groups that are done; none are all."""
    skip: tuple[str, ...] = ()
    """Tasks and groups that are not done."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Local data by task, in place of the suite's."""
    limit: int | None = None
    """First rows of every task only."""
    judge: str | None = None
    """Model that judges."""
    endpoint: str | None = None
    """Where the judge is served; None runs it here."""
    batch: int = 256
    seed: int = 1
    fresh: bool = False
    revision: str | None = None
    trust_remote_code: bool = False
    alone: bool = False
    """Whether the command names the task and no suite, so that there is nothing to skip."""

    @cached_property
    def chosen(self) -> dict[str, SuiteTask]:
        """The tasks that are done, in the suite's order."""
        return self.suite.chosen(self.tasks, self.skip)

    def sources(self, name: str) -> tuple[Source, ...]:
        """The data of a task."""
        if name in self.data:
            return (Source(name=self.data[name], fraction=1.0),)
        return self.suite.tasks[name].data or ()

    def task(self, name: str) -> SuiteTask:
        """A task; where its shots are rows of its own data, and the data is local, so are they."""
        task = self.suite.tasks[name]
        if name not in self.data or task.shots is None or task.shots.data not in (task.data or ()):
            return task
        return task.model_copy(update={"shots": task.shots.model_copy(update={"data": self.sources(name)[0]})})


def check(request: SuiteRequest) -> None:
    """Raise one RecipeError that names everything for which a task could not be done here, each with its cure."""
    found = [] if (problem := policy_problem(request.model)) is None else [f"{request.model}: {problem}"]
    known = [*request.suite.tasks, *request.suite.groups]
    for option, names in (("--task", request.tasks), ("--skip", request.skip), ("--data", request.data)):
        found += [
            f"{option} {name}: suite {request.suite.name} has no such task; it has {', '.join(known)}"
            for name in names
            if name not in known
        ]
    if not found and not request.chosen:
        found.append("--skip: leaves no task; name fewer")
    for name, task in request.chosen.items():
        cures = NAMED_ALONE if request.alone else ON_THE_COMMAND_LINE
        found += lacks(name, task, request.sources(name), request.data.get(name), request.judge, cures)
    if found:
        raise RecipeError("\n".join(dict.fromkeys(found)))
