"""`--tiny`: a recipe as it would be with a tiny random model and made-up rows, so that all of it can be tried in seconds.

What is tried is the recipe's own: losses, optimizer, schedules, algorithms, graders, templates, precision and sharding stay. Only
the model, the rows, and what counts or measures them change: sizes, lengths, batches and steps. A tiny recipe is the recipe with
further overrides, so it is checked, printed and resumed like any other, under a name of its own.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.job import stages_of
from tulu.config.made_up import Architecture, ProblemForm, architecture_of, problem_form, tiny_config
from tulu.config.schema import Evaluate, Recipe, Rlvr, Source, TrainStage
from tulu.config.stages import STAGES, RowKind
from tulu.config.tasks import GENERATED, TASKS
from tulu.config.templates import OWN
from tulu.config.unknown import hit, open_fields
from tulu.errors import RecipeError
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

SUFFIX = "-tiny"
STEPS, BATCH, MICRO_BATCH = 3, 8, 2
PROMPTS, SAMPLES = 4, 4
LENGTH, PROMPT, ANSWER = 2048, 1536, 24
"""Most tokens of a sequence, of a prompt and of an answer. The tokenizer has one for each byte."""
EVALUATED = 4
ROWS = 16
"""Made-up rows of a mix, at least two of each data set."""
_TAKEN = ("name", "model", "revision", "released", "start", "path")
"""Last parts of the keys whose overrides say what is made tiny, and not what the tiny recipe has there."""


@dataclass(frozen=True)
class MadeUpRows:
    """A file of made-up rows in place of a data set."""

    file: str
    kind: RowKind
    count: int
    form: ProblemForm | None = None
    """For problems, what the rows look like."""


@dataclass(frozen=True)
class Tiny:
    """What a tiny recipe needs, and how it differs from the recipe."""

    name: str
    inputs: Path
    """The folder of model and rows, which is written before the recipe runs."""
    overrides: tuple[str, ...]
    changes: tuple[str, ...]
    """What differs, one line for each section."""
    rows: tuple[MadeUpRows, ...]
    model: Architecture | None
    """The model to make; None where the recipe's base stage makes one."""
    own_template: str | None
    """`tokenizer`, or the name of one of several, where a section takes the template of the tokenizer; else None."""
    reward_model: bool
    """Whether a reward model is needed that no stage of the recipe trains."""


def shrink(recipe: Recipe, runs: Path) -> Tiny:
    """The tiny recipe of a recipe, whose folder is runs/NAME-tiny. RecipeError where its architecture is not known here."""
    name = recipe.name + SUFFIX
    inputs = (runs / name / "inputs").absolute()
    model = None if recipe.base is not None else _architecture(recipe)
    shrunk = [_Section("base" if stage.makes_model else stage.name, section, inputs) for stage, section in stages_of(recipe)]
    if recipe.evaluate is not None:
        shrunk.append(_Section("evaluate", recipe.evaluate, inputs))
    values: dict[str, Any] = {"name": name}
    if model is not None:
        values["model"] = str(inputs / "model")
    for part in shrunk:
        values |= part.values()
    stand_ins = {field: value for field, value in _open_values(recipe).items() if not hit(field, list(values))}
    own = next((one for one in _templates(recipe) if one.partition(":")[0] == OWN), None)
    return Tiny(
        name=name,
        inputs=inputs,
        overrides=tuple(f"{key}={json.dumps(value)}" for key, value in {**values, **stand_ins}.items()),
        changes=tuple(_lines(recipe, model, own, shrunk, stand_ins)),
        rows=tuple(row for part in shrunk for row in part.rows()),
        model=model,
        own_template=own,
        reward_model=any(part.needs_reward_model for part in shrunk),
    )


def kept(overrides: tuple[str, ...] | list[str]) -> list[str]:
    """The overrides of a command line that hold in the tiny recipe too: all but those that say which model it is made of."""
    return [text for text in overrides if text.partition("=")[0].rpartition(".")[2] not in _TAKEN]


def _architecture(recipe: Recipe) -> Architecture:
    named = [recipe.model, *(section.start or section.released for _, section in stages_of(recipe))]
    first = next((name for name in named if name is not None), None)
    if first is None:
        raise RecipeError(f"--tiny: recipe {recipe.name} names no model; set model, or the start of a stage")
    return architecture_of(first)


def _templates(recipe: Recipe) -> Iterator[str]:
    yield recipe.template
    yield from (section.template for _, section in stages_of(recipe) if section.template is not None)


def _open_values(recipe: Recipe) -> dict[str, Any]:
    """The stand-in of every field that was never published."""
    values = recipe.model_dump(mode="json")

    def at(key: str) -> Any:
        here: Any = values
        for part in key.split("."):
            here = here.get(part) if isinstance(here, Mapping) else None
        return here

    return {field: at(field) for field in open_fields(recipe)}


@dataclass(frozen=True)
class _Section:
    """One section of the recipe, and what becomes of it."""

    name: str
    fields: TrainStage | Evaluate
    inputs: Path

    def values(self) -> dict[str, Any]:
        """The fields that change, by their keys in the recipe."""
        fields = self.fields
        changed = self._evaluate(fields) if isinstance(fields, Evaluate) else self._training(fields)
        return {f"{self.name}.{key}": value for key, value in changed.items() if value != _at(fields, key)}

    def _training(self, fields: TrainStage) -> dict[str, Any]:
        smaller: dict[str, Any] = {
            "steps": STEPS,
            "epochs": None,
            "data": self._data(),
            "max_length": min(fields.max_length, LENGTH),
        }
        if isinstance(fields, Rlvr):
            smaller |= self._rollouts(fields)
        else:
            smaller["batch"] = min(fields.batch, BATCH)
        updated = smaller["batch"] // (fields.minibatches if isinstance(fields, Rlvr) else 1)
        smaller["micro_batch"] = _divisor(updated, min(fields.micro_batch, MICRO_BATCH))
        if hasattr(fields, "loss_micro_batch"):
            smaller["loss_micro_batch"] = _divisor(updated, fields.loss_micro_batch)
        if STAGES[self.name].makes_model:
            smaller["config"] = tiny_config(dict(_at(fields, "config")))
        if fields.start is not None:
            smaller["start"] = str(self.inputs / "model")
        return smaller

    def _rollouts(self, fields: Rlvr) -> dict[str, Any]:
        samples = min(fields.samples, SAMPLES)
        wanted = PROMPTS if samples > 1 else BATCH
        prompts = fields.minibatches * max(1, wanted // fields.minibatches)
        prompt, answer = min(fields.max_prompt, PROMPT), min(fields.max_tokens, ANSWER)
        smaller = {
            "samples": samples,
            "prompts": prompts,
            "batch": prompts * samples,
            "max_prompt": prompt,
            "max_tokens": answer,
            "max_length": prompt + answer,
            "engine": "transformers",
        }
        if fields.reward_model is not None and fields.reward_model.path is not None:
            smaller |= {"reward_model.path": self._reward_model, "reward_model.revision": None}
        value = fields.value
        if value is not None:
            if value.whiten_over is not None:
                smaller["value.whiten_over"] = _divisor(prompts * samples, min(value.whiten_over, prompts * samples // 2))
            for key in ("path", "released"):
                if getattr(value, key) is not None:
                    smaller |= {f"value.{key}": self._reward_model, "value.revision": None}
        return smaller

    def _evaluate(self, fields: Evaluate) -> dict[str, Any]:
        smaller: dict[str, Any] = {
            "data": self._data(),
            "limit": EVALUATED,
            "batch": min(fields.batch, EVALUATED),
            "max_tokens": min(fields.max_tokens, ANSWER),
            "engine": "transformers",
        }
        if fields.best_of is not None:
            smaller["best_of"] = 2
        if fields.reward_model is not None:
            smaller |= {"reward_model.path": self._reward_model, "reward_model.revision": None}
        return smaller

    @property
    def _reward_model(self) -> str:
        return str(self.inputs / "reward-model")

    @property
    def _value_is_named(self) -> bool:
        """Whether the value model begins as a reward model that the recipe names."""
        value = self.fields.value if isinstance(self.fields, Rlvr) else None
        return value is not None and (value.path or value.released) is not None

    @property
    def needs_reward_model(self) -> bool:
        """Whether a field names a reward model."""
        signal = self.fields.reward_model if isinstance(self.fields, Rlvr | Evaluate) else None
        return self._value_is_named or (signal is not None and signal.path is not None)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The data sets of the recipe; those of the task where an evaluation names none."""
        if isinstance(self.fields, Evaluate) and self.fields.data is None:
            return (TASKS[self.fields.task].source,)
        return tuple(self.fields.data or ())

    @property
    def _share(self) -> int:
        return max(2, -(-ROWS // len(self.sources)))

    def _data(self) -> list[dict[str, Any]]:
        return [
            {"name": source.name, "count": self._share}
            if self._is_generated(source)
            else {"name": str(self.inputs / f"{self.name}-{index}.jsonl"), "fraction": 1.0}
            for index, source in enumerate(self.sources)
        ]

    def rows(self) -> list[MadeUpRows]:
        """The files that stand for the data sets."""
        kind = STAGES[self.name].rows
        return [
            MadeUpRows(f"{self.name}-{index}.jsonl", kind, self._share, self._form(source) if kind == "rlvr" else None)
            for index, source in enumerate(self.sources)
            if not self._is_generated(source)
        ]

    def _is_generated(self, source: Source) -> bool:
        """Whether rows need not be made up, because they are generated. No random model solves generated problems."""
        return source.name.partition(":")[0] in GENERATED and STAGES[self.name].rows != "rlvr"

    def _form(self, source: Source) -> ProblemForm:
        form, verifier = problem_form(source.name), getattr(self.fields, "verifier", None)
        if verifier is None and isinstance(self.fields, Evaluate) and self.fields.task in TASKS:
            verifier = TASKS[self.fields.task].verifier
        one = verifier is not None and verifier.lower() != REWARD_MODEL
        return ProblemForm((verifier,), form.prompt, form.lists, known=True) if one and verifier else form

    def line(self) -> str:
        """What differs, in a line."""
        values = {key.removeprefix(f"{self.name}."): value for key, value in self.values().items()}
        guessed = [source.name for source, row in zip(self.sources, self.rows(), strict=False) if row.form and not row.form.known]
        told = [f"{key} {_shown(_at(self.fields, key))} → {_shown(value)}" for key, value in values.items() if key not in _UNTOLD]
        if "steps" in values:
            told.insert(0, f"{_duration(self.fields)} → {values['steps']} steps")
        if "start" in values:
            told.append(f"the random model for {_at(self.fields, 'start')}")
        if "config" in values:
            told.append("config smaller")
        if "reward-model" in {Path(str(value)).name for value in values.values()}:
            told.append("a random reward model")
        if guessed:
            told.append(f"rows of gsm8k for {', '.join(guessed)}, whose columns are not known here")
        made = sum(row.count for row in self.rows()) or self._share * len(self.sources)
        what = "made-up rows" if self.rows() else "generated rows"
        return f"{self.name}: {made} {what}, {', '.join(told)}"


_UNTOLD = (
    *("data", "config", "start", "steps", "epochs"),
    *("reward_model.path", "reward_model.revision", "value.path", "value.released", "value.revision"),
)
"""Changed fields that a line tells in other words."""


def _at(section: Any, key: str) -> Any:
    here = section
    for part in key.split("."):
        here = getattr(here, part, None)
    return here


def _divisor(number: int, most: int) -> int:
    """The largest divisor of a number that is not over `most`."""
    return next(each for each in range(max(1, min(number, most)), 0, -1) if number % each == 0)


def _duration(section: Any) -> str:
    """How long a stage trains."""
    if section.steps is not None:
        return f"{section.steps:,} steps"
    return "1 epoch" if section.epochs == 1 else f"{section.epochs:g} epochs"


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _lines(
    recipe: Recipe, model: Architecture | None, own: str | None, sections: list[_Section], stand_ins: Mapping[str, Any]
) -> Iterator[str]:
    if model is not None:
        yield f"model: a random {model.config['model_type']} with a tokenizer of bytes, in place of {recipe.model or 'the start'}"
        if own is not None and not model.template.strip().startswith("{"):
            yield f"template: {model.template} for the tokenizer's own, which is not here"
    yield from (section.line() for section in sections)
    yield from (f"{field}: was never published; here {_shown(value)}" for field, value in stand_ins.items())
