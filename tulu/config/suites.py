"""Suites: several evaluation tasks with shots, prompts and metrics in one YAML, and the average that a report makes of them.

The suites that come with the package lie in tulu/evaluation/suites; a path names one's own. A task is done in one of three ways,
which its keys tell apart: `verifier` (rows, prompts and a verifier of this package), `harness` (a task of lm-eval), and
`reference` (a judge compares the answer with another model's).
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from tulu.config.parts import NonNegative, Probability, Section, Source, Sources, Texts
from tulu.config.suite_templates import template_mistake
from tulu.config.yaml_text import Located, read_yaml
from tulu.errors import RecipeError, near_names, nearest
from tulu.verifiers.registry import check_name

FOLDER = Path(__file__).resolve().parents[1] / "evaluation" / "suites"
"""The suites that come with the package."""
METRICS = ("accuracy", "solved", "agreed", "contains")
"""The metrics of tasks with a verifier, beside pass@K: what each makes of a problem's answers stands in suite_scores.py."""
PASS_AT = re.compile(r"pass@([1-9]\d*)")
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
"""A name that is a folder's too, and leads out of none: a suite may be another person's file."""
WIN_RATES = ("win_rate", "length_controlled_win_rate")
"""The metrics of tasks with a judge."""


class Shots(Section):
    """Solved examples that stand before a question, each as a turn of the user and one of the assistant."""

    count: PositiveInt
    """How many of them, from the first on."""
    answer: str
    """Template of the assistant's turn; the user's is the one that asks the question."""
    harness: str | None = None
    """Task of lm-eval whose own examples are taken."""
    data: Source | None = None
    """Rows of which the first are taken; they are not asked."""
    rows: Annotated[tuple[dict[str, Any], ...], Field(strict=False)] = ()
    """The examples themselves."""


class SuiteTask(Section):
    """One task of a suite."""

    title: str
    """Name in the table."""
    data: Sources | None = None
    """Rows; null where nobody publishes them in a form that can be read, so that a file of one's own is needed."""
    obtain: str = ""
    """Where the rows of a task without data are to be had."""
    problems: PositiveInt | None = None
    """How many problems the original asks; another number of rows is told beside the score."""
    ask: str | None = None
    """Jinja template of the user's turn, over a row's columns; null takes the row's own prompt."""
    gold: str | None = None
    """Jinja expression of the ground truth; null takes the row's own."""
    where: str | None = None
    """Jinja expression: rows for which it is false are not part of the task."""
    shots: Shots | None = None
    """Solved examples before the question."""
    verifier: str | None = None
    """What scores an answer."""
    harness: str | None = None
    """Task or group of lm-eval that is run in place of rows and a verifier."""
    harness_shots: PositiveInt | None = None
    """Solved examples of a task of lm-eval; null leaves it its own number."""
    chat: bool = True
    """Whether a task of lm-eval is asked through the chat template; the others always are."""
    reference: str | None = None
    """Jinja expression of the answer with which a judge compares the model's."""
    metric: str = "accuracy"
    """accuracy (mean score), solved (score 1), agreed (score of at least a half), contains (an accepted answer stands in the
    text), pass@K; of lm-eval METRIC or METRIC,FILTER; of a judge win_rate or length_controlled_win_rate."""
    better: Literal["higher", "lower"] = "higher"
    """Direction of the metric."""
    mean_over: str | None = None
    """Column by whose values the problems are grouped: the score is the mean of the groups' means. data_set stands for the data
    set that a row is of; of lm-eval: task."""
    samples: PositiveInt = 1
    """Answers to each problem."""
    max_tokens: PositiveInt = 512
    """Most tokens of an answer."""
    temperature: NonNegative = 0.0
    """0 is greedy."""
    top_p: Probability = 1.0
    """Share of the probability that is sampled from."""
    stop: Texts = ()
    """Texts that end an answer."""
    differs: str = ""
    """What is not as in the original harness."""

    @property
    def kind(self) -> Literal["verifier", "harness", "judge"]:
        """How the task is done."""
        return "harness" if self.harness else "judge" if self.reference else "verifier"


class Suite(Section):
    """Several tasks, and which of them make the average."""

    name: FolderName
    """Name of the suite, and of its folder of results."""
    about: str
    """Whose evaluation it is."""
    tasks: Annotated[dict[FolderName, SuiteTask], Field(min_length=1)]
    """The tasks by name, which is that of their folder too."""
    groups: dict[str, Texts] = Field(default={})
    """Tasks that count as one, with the mean of their scores."""
    average: Texts = ()
    """Tasks and groups whose mean is the suite's score; none are all tasks."""
    left_out: dict[str, str] = Field(default={})
    """Tasks of the original that are not here, and why."""

    @property
    def counted(self) -> tuple[str, ...]:
        """The tasks and groups of the average."""
        return self.average or tuple(self.tasks)

    def missing(self, lacking: Sequence[str]) -> tuple[str, ...]:
        """What the report's average has and ours has not: tasks that were not done now, and those that are not here at all."""
        return (*lacking, *self.left_out)

    def chosen(self, names: Sequence[str], skip: Sequence[str]) -> dict[str, SuiteTask]:
        """The tasks and members of groups that are named, all where none is, without those that are skipped."""
        wanted, left = ({one for name in listed for one in self.groups.get(name, (name,))} for listed in (names, skip))
        return {name: task for name, task in self.tasks.items() if (name in wanted or not names) and name not in left}


def built_in_suites() -> dict[str, Path]:
    """The suites that come with the package, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.yaml"))}


def find_suite(name: str) -> Path:
    """The file of a suite: a path, or a built-in one by name. Raises RecipeError."""
    known = built_in_suites()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise RecipeError(f"--suite {name}: no such file (looked from {Path.cwd()}); correct the path")
    raise RecipeError(f"--suite {name}: unknown{nearest(name, known)}; known are {', '.join(known)}, or a YAML file of one's own")


_FIELDS = (*SuiteTask.model_fields, *Suite.model_fields, *Shots.model_fields)


def load_suite(name: str) -> Suite:
    """Read and check a suite; a RecipeError lists every mistake with its line and cure."""
    path = find_suite(name)
    located = read_yaml(path)
    _take_over(located, path)
    try:
        suite = Suite.model_validate(located.value)
    except ValidationError as error:
        lines = [_line(located, _known(detail["loc"], located.value), _words(detail)) for detail in _own(error)]
        raise _report(path, lines) from None
    mistakes = [_line(located, place, text) for place, text in _mistakes(suite)]
    if mistakes:
        raise _report(path, mistakes)
    return suite


def _own(error: ValidationError) -> list[Any]:
    """The mistakes of a file, without the missing keys that an unknown one beside them is a slip for."""
    details = error.errors()
    slips = {detail["loc"] for detail in details if detail["type"] == "extra_forbidden"}
    meant = {(*place[:-1], name) for place in slips for name in near_names(str(place[-1]), _FIELDS)}
    return [detail for detail in details if detail["type"] != "missing" or detail["loc"] not in meant]


def _report(path: Path, lines: Iterable[str]) -> RecipeError:
    unique = list(dict.fromkeys(lines))
    count = "1 problem" if len(unique) == 1 else f"{len(unique)} problems"
    return RecipeError(f"{path}: {count}\n" + "\n".join(f"  {line}" for line in unique))


def _line(located: Located, place: Sequence[str | int], text: str) -> str:
    """A mistake with the line of the nearest key that the file writes."""
    at = next((located.lines[key] for end in range(len(place), 0, -1) if (key := tuple(place[:end])) in located.lines), "")
    return f"{at}: {'.'.join(map(str, place))}: {text}".removeprefix(": ")


def _known(place: Sequence[str | int], raw: Any) -> list[str | int]:
    """pydantic's place of an error, without what does not stand in the file (a list around a single data set)."""
    known: list[str | int] = []
    for part in place:
        if part == "[key]" or (isinstance(part, int) and not isinstance(raw, list)):
            continue
        known.append(part)
        raw = (
            raw.get(part) if isinstance(raw, Mapping) else raw[part] if isinstance(raw, list) and isinstance(part, int) else None
        )
    return known


def _words(detail: Any) -> str:
    kind, key = detail["type"], str(detail["loc"][-1])
    if kind == "missing":
        return "missing; add it"
    if kind == "extra_forbidden":
        return f"unknown key{nearest(key, _FIELDS)}; remove it"
    if kind == "string_pattern_mismatch":
        return "should begin with a letter or a digit, and have only these, dots, dashes and underscores; rename it"
    return str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")


def _take_over(located: Located, path: Path) -> None:
    """Replace each task that says `from: SUITE` by that suite's task of the same name, with the keys beside `from` on top."""
    tasks = located.value.get("tasks")
    read: dict[str, Any] = {path.stem: {}}
    for name, task in tasks.items() if isinstance(tasks, dict) else ():
        if not isinstance(task, dict) or "from" not in task:
            continue
        origin = str(task["from"])
        if origin not in read:
            read[origin] = read_yaml(find_suite(origin)).value.get("tasks") or {}
        raw = read[origin]
        if not isinstance(raw.get(name), dict) or "from" in raw[name]:
            known = ", ".join(raw) or "none"
            raise RecipeError(f"{path}: tasks.{name}.from: {origin} has no task {name} of its own; it has {known}")
        tasks[name] = {**raw[name], **{key: value for key, value in task.items() if key != "from"}}


Mistakes = list[tuple[tuple[str, ...], str]]


def _mistakes(suite: Suite) -> Mistakes:
    found: Mistakes = []
    for name, task in suite.tasks.items():
        found += [(("tasks", name, *place), text) for place, text in _task_mistakes(task)]
    for name, members in suite.groups.items():
        if name in suite.tasks:
            found.append((("groups", name), "a task has this name; choose another"))
        found += _unknown(("groups", name), members, suite.tasks)
    return found + _unknown(("average",), suite.average, [*suite.tasks, *suite.groups])


def _unknown(place: tuple[str, ...], names: Iterable[str], known: Collection[str]) -> Mistakes:
    return [
        (place, f"no task {name!r}{nearest(name, known)}; known are {', '.join(known)}") for name in names if name not in known
    ]


def _task_mistakes(task: SuiteTask) -> Mistakes:
    ways = [key for key in ("verifier", "harness", "reference") if getattr(task, key) is not None]
    if len(ways) != 1:
        return [((), f"give exactly one of verifier, harness and reference{', not ' + ' and '.join(ways) if ways else ''}")]
    found = _metric_mistakes(task) + _template_mistakes(task)
    if task.verifier is not None:
        try:
            check_name(task.verifier)
        except RecipeError as error:
            # What this machine lacks (a sandbox, a judge's address) is told when the task is to be run.
            if "is unknown" in str(error):
                found.append((("verifier",), str(error)))
    if task.samples > 1 and task.temperature == 0:
        found.append((("samples",), f"{task.samples} greedy answers are all the same; set temperature above 0, or samples to 1"))
    if task.harness is not None:
        own = ("data", "problems", "ask", "gold", "where", "shots", "samples", "temperature", "top_p")
        given = [key for key in own if key in task.model_fields_set]
        found += [((key,), "lm-eval's task says this itself; remove it") for key in given]
        if task.mean_over not in (None, "task"):
            found.append((("mean_over",), f"{task.mean_over}: lm-eval's problems are grouped by their task alone; write task"))
    if task.reference is not None:
        given = [key for key in ("samples", "mean_over") if key in task.model_fields_set]
        found += [((key,), "a judge compares one answer to each problem, and all count alike; remove it") for key in given]
    found += [
        ((key,), "belongs to a task of lm-eval; remove it")
        for key in ("harness_shots", "chat")
        if task.harness is None and key in task.model_fields_set
    ]
    if task.shots is not None:
        sources = [key for key in ("harness", "data", "rows") if getattr(task.shots, key)]
        if len(sources) != 1:
            found.append((("shots",), "give exactly one of harness, data and rows"))
        elif task.shots.rows and len(task.shots.rows) < task.shots.count:
            found.append((("shots", "count"), f"{task.shots.count} shots, and {len(task.shots.rows)} rows"))
        if task.ask is None:
            found.append((("shots",), "need ask, the template by which they are asked"))
    return found


def _metric_mistakes(task: SuiteTask) -> Mistakes:
    match = PASS_AT.fullmatch(task.metric)
    if task.kind == "judge" and task.metric not in WIN_RATES:
        return [(("metric",), f"{task.metric}: of a judge there are {' and '.join(WIN_RATES)}")]
    if task.kind == "verifier" and task.metric not in METRICS and not match:
        return [(("metric",), f"{task.metric}: unknown; known are {', '.join(METRICS)} and pass@K")]
    if task.kind == "verifier" and match and int(match[1]) > task.samples:
        return [(("metric",), f"{task.metric} needs samples of at least {match[1]}, and there are {task.samples}")]
    return []


def _template_mistakes(task: SuiteTask) -> Mistakes:
    templates = {("ask",): task.ask, ("shots", "answer"): task.shots.answer if task.shots else None}
    expressions = {("gold",): task.gold, ("where",): task.where, ("reference",): task.reference}
    found = [(place, template_mistake(text)) for place, text in templates.items() if text is not None]
    found += [(place, template_mistake(text, expression=True)) for place, text in expressions.items() if text is not None]
    return [(place, mistake) for place, mistake in found if mistake is not None]
