"""One section of a recipe under `--tiny`: its fields with small sizes, and the rows that stand for its data sets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu.config.locate import is_local_data
from tulu.config.made_up import ProblemForm, problem_form, tiny_config
from tulu.config.recipe_stages import RecipeStage, named_by
from tulu.config.schema import Evaluate, Merge, MergedModel, Rlvr, Source, TrainStage
from tulu.config.stages import RowKind
from tulu.config.tasks import GENERATED, TASKS
from tulu.config.training import FixedData, TokenBatched
from tulu.config.unknown import hit
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

STEPS, BATCH, MICRO_BATCH = 3, 8, 2
PROMPTS, SAMPLES = 4, 4
LENGTH, PROMPT, ANSWER = 2048, 1536, 16
"""Most tokens of a sequence, of a prompt and of an answer. The tokenizer has one for each byte."""
BLIND = 2
"""How many times as many prompts, samples and tokens of an answer there are where the recipe makes its own model: that one leans
towards no answer, and is right by luck in a few of a hundred, so that with fewer a run might learn nothing."""
EVALUATED = 4
TEACHER = "teacher"
"""The folder of the model that a stage distils from."""
ROWS = 16
"""Made-up rows of a mix, at least two of each data set."""
_UNTOLD = (
    *("data", "config", "start", "steps", "epochs"),
    *("reward_model.path", "reward_model.revision", "value.path", "value.released", "value.revision"),
    *("teacher.path", "teacher.revision"),
)
"""Changed fields that a line tells in other words."""


@dataclass(frozen=True)
class MadeUpRows:
    """A file of made-up rows in place of a data set."""

    file: str
    kind: RowKind
    count: int
    form: ProblemForm | None = None
    """For problems, what the rows look like."""


@dataclass(frozen=True)
class TinySection:
    """One section of the recipe, and what becomes of it."""

    stage: RecipeStage[Any]
    inputs: Path
    all_stages: tuple[RecipeStage[Any], ...]
    given: tuple[str, ...] = ()
    """The keys that the command line sets, which hold here too."""

    @property
    def name(self) -> str:
        """What stands before its fields in an override."""
        return self.stage.key

    @property
    def fields(self) -> TrainStage | Evaluate | Merge:
        """The section as the recipe has it."""
        section: TrainStage | Evaluate | Merge = self.stage.section
        return section

    def values(self) -> dict[str, Any]:
        """The fields that change, by their keys in the recipe."""
        fields = self.fields
        if isinstance(fields, Merge):
            changed = {"models": self._models(fields)} if self.merged else {}
        else:
            changed = self._evaluate(fields) if isinstance(fields, Evaluate) else self._training(fields)
        return {f"{self.name}.{key}": value for key, value in changed.items() if value != _at(fields, key)}

    def _training(self, fields: TrainStage) -> dict[str, Any]:
        smaller: dict[str, Any] = {"steps": STEPS, "epochs": None, "data": self._data()}
        if isinstance(fields, Rlvr):
            smaller |= self._rollouts(fields)
        else:
            smaller["max_length"] = min(fields.max_length, LENGTH)
            counts_tokens = isinstance(fields, TokenBatched) and fields.batch_tokens is not None
            smaller |= {"batch_tokens": smaller["max_length"]} if counts_tokens else {"batch": min(fields.batch, BATCH)}
        updated = smaller.get("batch", BATCH) // (fields.minibatches if isinstance(fields, Rlvr) else 1)
        smaller["micro_batch"] = _divisor(updated, min(fields.micro_batch, MICRO_BATCH))
        if hasattr(fields, "loss_micro_batch"):
            smaller["loss_micro_batch"] = _divisor(updated, fields.loss_micro_batch)
        if self.stage.row.makes_model:
            smaller["config"] = tiny_config(dict(_at(fields, "config")))
        if fields.keep_every is not None:
            smaller["keep_every"] = STEPS
        smaller |= self._looks(fields)
        if fields.start is not None:
            named, step = named_by(fields.start, self.all_stages) or (None, None)
            kept = f"@step-{STEPS}" if step is not None else ""
            smaller["start"] = f"{named.name}{kept}" if named else str(self.inputs / "model")
        return smaller

    @property
    def starts_elsewhere(self) -> bool:
        """Whether it starts from a model that no stage of the recipe makes, for which the random one stands."""
        start = self.fields.start if isinstance(self.fields, TrainStage) else None
        return start is not None and named_by(start, self.all_stages) is None

    @property
    def needs_model(self) -> bool:
        """Whether it names a model that must be made, though the recipe makes its own."""
        return self.starts_elsewhere or self.needs_reward_model or bool(self.others)

    @staticmethod
    def _looks(fields: TrainStage) -> dict[str, Any]:
        """What is looked at on the way: a share of the made-up rows, as the recipe has it, and no data of another kind."""
        looked = {"eval_task": None, "eval_data": None} if isinstance(fields, FixedData) else {"eval_task": None}
        share = isinstance(fields, FixedData) and fields.held_out > 0 and fields.eval_every is not None
        return {**looked, "eval_every": 1 if share else None}

    def _models(self, fields: Merge) -> list[dict[str, str]]:
        """The merged models, a random one for each that this recipe does not train."""
        foreign = iter(range(1, self.merged + 1))
        return [
            {"stage": str(model.stage)} if self._is_own(model) else {"name": str(self.inputs / merged_name(next(foreign)))}
            for model in fields.models
        ]

    @property
    def others(self) -> list[str]:
        """The folders of further models that are needed: a teacher, and those that are merged and that no stage trains."""
        teacher = [TEACHER] if isinstance(self.fields, Rlvr) and self.fields.teacher is not None else []
        return [*(merged_name(number) for number in range(1, self.merged + 1)), *teacher]

    @property
    def merged(self) -> int:
        """How many models are merged that this recipe does not train."""
        return sum(not self._is_own(model) for model in self.fields.models) if isinstance(self.fields, Merge) else 0

    @staticmethod
    def _is_own(model: MergedModel) -> bool:
        return model.stage is not None and model.run is None

    def _rollouts(self, fields: Rlvr) -> dict[str, Any]:
        times = BLIND if any(stage.row.makes_model for stage in self.all_stages) else 1
        samples = min(fields.samples, times * SAMPLES)
        wanted = times * (PROMPTS if samples > 1 else PROMPTS * SAMPLES)
        prompts = fields.minibatches * max(1, wanted // fields.minibatches)
        prompt, answer = min(fields.max_prompt, PROMPT), min(fields.max_tokens, times * ANSWER)
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
        if fields.teacher is not None:
            smaller |= {"teacher.path": str(self.inputs / TEACHER), "teacher.revision": None}
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
            # A suite has thousands of problems, and prompts of its own.
            **{"suite": None, "skip": (), "judge": None, "judge_endpoint": None},
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
        return () if isinstance(self.fields, Merge) else tuple(self.fields.data or ())

    @property
    def _share(self) -> int:
        return max(2, -(-ROWS // len(self.sources)))

    def _data(self) -> list[dict[str, Any]]:
        return [
            {**source.model_dump(mode="json", exclude_defaults=True, exclude={"fraction"}), "count": self._share}
            if self._is_taken(source)
            else {"name": str(self.inputs / f"{self.stage.name}-{index}.jsonl"), "fraction": 1.0}
            for index, source in enumerate(self.sources)
        ]

    def rows(self) -> list[MadeUpRows]:
        """The files that stand for the data sets."""
        return [
            MadeUpRows(f"{self.stage.name}-{index}.jsonl", self.stage.row.rows, self._share, self._form(source))
            for index, source in enumerate(self.sources)
            if not self._is_taken(source)
        ]

    def _is_taken(self, source: Source) -> bool:
        """Whether its own rows are taken: because they are generated, or because an environment plays no others, which brings
        them along or reads the columns of a file. No random model solves generated problems, so that others stand for these."""
        env = self.fields.env if isinstance(self.fields, Rlvr | Evaluate) else None
        if env is not None and (env.brings_rows or (env.reads_rows and self._is_file(source))):
            return True
        return source.name.partition(":")[0] in GENERATED and self.stage.row.rows != "rlvr"

    @staticmethod
    def _is_file(source: Source) -> bool:
        return is_local_data(source.name) or Path(source.name).expanduser().exists()

    def _form(self, source: Source) -> ProblemForm | None:
        """What made-up problems look like; None for rows of other kinds."""
        if self.stage.row.rows != "rlvr":
            return None
        form, verifier = problem_form(source.name), getattr(self.fields, "verifier", None)
        if verifier is None and isinstance(self.fields, Evaluate) and self.fields.task in TASKS:
            verifier = TASKS[self.fields.task].verifier
        one = verifier is not None and verifier.lower() != REWARD_MODEL
        return ProblemForm((verifier,), form.prompt, form.lists, known=True) if one and verifier else form

    def _rows_told(self, made_up: int) -> str:
        """Which rows are trained on, of which those of so many sources are made up."""
        if made_up:
            return f"{made_up * self._share} made-up rows"
        own = ", ".join(source.name for source in self.sources if self._is_file(source))
        kind = f"rows of {own}" if own else "generated rows"
        return f"{len(self.sources) * self._share} {kind}"

    def line(self) -> str:
        """What differs, in a line."""
        if isinstance(self.fields, Merge):
            return f"{self.name}: {self.merged or 'no'} random models in place of those that other runs trained"
        changed = {key: value for key, value in self.values().items() if not hit(key, self.given)}
        values = {key.removeprefix(f"{self.name}."): value for key, value in changed.items()}
        made = [(source, form) for source in self.sources if not self._is_taken(source) for form in [self._form(source)]]
        guessed = [source.name for source, form in made if form is not None and not form.known]
        told = [f"{key} {shown(_at(self.fields, key))} → {shown(value)}" for key, value in values.items() if key not in _UNTOLD]
        if "steps" in values:
            told.insert(0, f"{_duration(self.fields)} → {values['steps']} steps")
        if "start" in values:
            told.append(f"{Path(values['start']).name} for {_at(self.fields, 'start')}")
        if "config" in values:
            told.append("config smaller")
        if "reward-model" in {Path(str(value)).name for value in values.values()}:
            told.append("a random reward model")
        if "teacher.path" in values:
            told.append(f"a random model for the teacher {_at(self.fields, 'teacher.path')}")
        if guessed and "data" in values:
            told.append(f"rows of gsm8k in place of {', '.join(guessed)}")
        what = self._rows_told(len(made)) if "data" in values else "the rows of the command line"
        return f"{self.name}: {', '.join([what, *told])}"


def merged_name(number: int) -> str:
    """The folder of a model that is merged and that no stage trains."""
    return f"merged-{number}"


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


def shown(value: Any) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
