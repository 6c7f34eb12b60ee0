"""Combinations that no single field can refuse: a batch that does not divide, a file that is not there, and the like.

Each check reads only fields that are valid by themselves, so that one mistake never hides another.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from tulu.config.locate import judge_problem, model_problem, source_problem
from tulu.config.mistakes import Mistake, nearest, section_at
from tulu.config.mistakes import Path as Key
from tulu.config.schema import Recipe
from tulu.errors import RecipeError
from tulu.verifiers.reward_model import NAME as REWARD_MODEL


class _Unread(Exception):
    """A check asked for a field that is missing or wrong by itself."""


@dataclass(frozen=True)
class Values:
    """The valid fields of one section."""

    name: str
    fields: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name not in self.fields:
            raise _Unread(name)
        return self.fields[name]

    def mistake(self, key: str, text: str, value: Any = None) -> Mistake:
        """A mistake at one of this section's keys, with its value."""
        path: Key = (*((self.name,) if self.name else ()), *key.split("."))
        return Mistake(path, text, self.fields.get(key.split(".")[0]) if value is None else value)


@dataclass(frozen=True)
class Setting:
    """What surrounds the section that is checked."""

    recipe: Values
    processes: Mapping[str, int] = field(default_factory=dict)
    """Processes that a stage is trained on, by the section's name; 1 where not given."""


def combination_mistakes(raw: Mapping[str, Any], wrong: Collection[Key], processes: Mapping[str, int]) -> list[Mistake]:
    """Every impossible combination of a recipe; keys in `wrong` are known to be wrong by themselves."""
    setting = Setting(Values("", _valid((), raw, wrong)), processes)
    found = _run(RECIPE_CHECKS, setting.recipe, setting)
    for name, checks in CHECKS.items():
        if isinstance(raw.get(name), Mapping):
            found += _run(checks, Values(name, _valid((name,), raw[name], wrong)), setting)
    return found


def _run(checks: tuple["Check", ...], values: Values, setting: Setting) -> list[Mistake]:
    found: list[Mistake] = []
    for check in checks:
        try:
            found.extend(check(values, setting))
        except _Unread:
            continue
    return found


def _valid(path: Key, raw: Mapping[str, Any], wrong: Collection[Key]) -> dict[str, Any]:
    """The fields of a section that are right by themselves, as a recipe holds them; other sections stay plain."""
    section = section_at(path)
    assert section is not None
    bad = {key[len(path)] for key in wrong if key[: len(path)] == path and len(key) > len(path)}
    values: dict[str, Any] = {}
    for name, info in section.model_fields.items():
        if name in bad or (name not in raw and info.is_required()):
            continue
        nested = name in Recipe.model_fields and section is Recipe and section_at((name,)) is not None
        values[name] = raw.get(name) if nested else _value(info, raw[name]) if name in raw else info.get_default()
    return values


def _value(info: FieldInfo, raw: Any) -> Any:
    if info.annotation in (int, float, str, bool) or raw is None:
        return raw
    return TypeAdapter(info.rebuild_annotation()).validate_python(raw)


def micro_batch(batch: int, most: int, processes: int) -> int:
    """Sequences that one process takes side by side: `most`, or its whole share of the batch where that is smaller."""
    return max(1, min(most, batch // processes))


def _duration(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if (stage.epochs is None) == (stage.steps is None):
        found = "neither is given" if stage.epochs is None else f"both are given ({stage.epochs:g} and {stage.steps})"
        yield Mistake((stage.name, "epochs"), f"give exactly one of epochs and steps; {found}", shown=False)


def _batch(stage: Values, setting: Setting) -> Iterator[Mistake]:
    processes = setting.processes.get(stage.name, 1)
    parts = stage.minibatches if stage.name == "rlvr" else 1
    if stage.name == "rlvr" and (stage.batch != stage.prompts * stage.samples or stage.prompts % parts):
        return  # said by _rollouts
    step = stage.batch // parts
    if step % processes:
        yield stage.mistake("batch", f"does not divide over {processes} processes; {_choices(stage.batch, parts * processes)}")
        return
    micro = micro_batch(step, stage.micro_batch, processes)
    if (step // processes) % micro:
        share = step // processes
        cure = ", ".join(str(n) for n in range(micro, 0, -1) if share % n == 0)
        whose = f"{share} a process" if processes > 1 else f"{share} a minibatch" if parts > 1 else "it"
        yield stage.mistake(
            "batch",
            f"does not divide: {whose} is no multiple of micro_batch {micro}; "
            f"set {stage.name}.micro_batch to one of {cure}, or {_choices(stage.batch, parts * processes * micro)}",
        )


def _choices(batch: int, unit: int) -> str:
    below, above = batch // unit * unit, (batch // unit + 1) * unit
    return f"use a multiple of {unit} such as {above if below == 0 else f'{below} or {above}'}"


def _data(stage: Values, setting: Setting) -> Iterator[Mistake]:
    seen: dict[tuple[str, str, str | None, str | None], int] = {}
    for index, source in enumerate(stage.data or ()):
        key = (source.name, source.split, source.subset, source.revision)
        if key in seen:
            text = f"is also item {seen[key]} of the mix; list a data set once, with fraction: 2.0 for two copies"
            yield stage.mistake(f"data.{index}.name", text, source.name)
        seen.setdefault(key, index)
        if problem := source_problem(source.name):
            yield stage.mistake(f"data.{index}.name", problem, source.name)


def _start(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.start is not None and (problem := model_problem(stage.start)):
        yield stage.mistake("start", problem)


def _model(recipe: Values, setting: Setting) -> Iterator[Mistake]:
    if recipe.model is None and recipe.base is None:
        starts = [recipe.fields.get(name) for name in ("sft", "dpo", "rm", "rlvr")]
        if not all(isinstance(stage, Mapping) and stage.get("start") for stage in starts if stage is not None):
            yield Mistake(
                ("model",), "missing; name a model folder or hub model, or add a base section that makes one", shown=False
            )
    elif recipe.model is not None and recipe.base is not None:
        yield recipe.mistake("model", "the base section makes another model; keep one of model and base")
    elif recipe.model is not None and (problem := model_problem(recipe.model)):
        yield recipe.mistake("model", problem)


def _template(recipe: Values, setting: Setting) -> Iterator[Mistake]:
    from tulu.config.templates import TEMPLATES

    known = [*TEMPLATES, "tokenizer"]
    if recipe.template not in known:
        hint = nearest(recipe.template, known)
        yield recipe.mistake("template", f"unknown template{hint}; known are {', '.join(known)}")


def _needs_template(recipe: Values, setting: Setting) -> Iterator[Mistake]:
    if recipe.base is not None and recipe.template == "tokenizer":
        yield recipe.mistake("template", "the tokenizer that the base section makes has no template; name one, such as tulu")


def _judge(stage: Values, setting: Setting) -> Iterator[Mistake]:
    judge = stage.reward_model
    if judge is None:
        return
    if judge.path is not None:
        if problem := judge_problem(judge.path):
            yield stage.mistake("reward_model.path", problem, judge.path)
    elif stage.name == "evaluate":
        text = "missing; name a reward model that is there before the recipe runs"
        yield Mistake((stage.name, "reward_model", "path"), text, shown=False)
    elif setting.recipe.fields.get("rm") is None:
        text = "missing; name a reward model, or add an rm section that trains one"
        yield Mistake((stage.name, "reward_model", "path"), text, shown=False)


def _best_of(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.best_of is None:
        if stage.reward_model is not None:
            yield stage.mistake("reward_model", "it picks among several answers; set best_of, such as 16", "set")
        return
    if stage.reward_model is None:
        yield stage.mistake("best_of", "nothing picks among the answers; set reward_model")
    if stage.temperature == 0:
        yield stage.mistake("temperature", f"all {stage.best_of} answers would be the same; set it above 0, such as 1.0")


def _verifier(stage: Values, setting: Setting) -> Iterator[Mistake]:
    from tulu.verifiers.registry import check_name

    if stage.verifier is not None and stage.verifier.lower() == REWARD_MODEL:
        if stage.name == "evaluate":
            text = "a reward model cannot say which answers are right; name a verifier (best_of and reward_model pick by it)"
            yield stage.mistake("verifier", text)
        elif stage.reward_model is None:
            text = f"there is no reward model to ask; set {stage.name}.reward_model.path (`tulu rm` trains one)"
            yield stage.mistake("verifier", text)
    elif stage.verifier is not None:
        try:
            check_name(stage.verifier)
        except RecipeError as error:
            yield stage.mistake("verifier", str(error))


def _lora(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.lora is None:
        return
    if stage.name == "base":
        yield stage.mistake("lora", "a new model is trained whole; remove lora", "set")
    if isinstance(stage.lora.targets, tuple) and "lm_head" in stage.lora.targets:
        text = "the output head is read in chunks and takes no adapter; remove lm_head"
        yield stage.mistake("lora.targets", text, list(stage.lora.targets))


def _rollouts(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.batch != stage.prompts * stage.samples:
        product = f"{stage.prompts} × {stage.samples} = {stage.prompts * stage.samples}"
        yield stage.mistake("batch", f"batch is prompts × samples = {product}; change one of the three")
    elif stage.prompts % stage.minibatches:
        text = f"{stage.prompts} prompts do not divide into {stage.minibatches} minibatches; use a divisor of {stage.prompts}"
        yield stage.mistake("minibatches", text)


def _value_model(stage: Values, setting: Setting) -> Iterator[Mistake]:
    gae = stage.advantage == "gae"
    if stage.value is None:
        if gae:
            yield Mistake(
                (stage.name, "value"), "missing; advantage gae (PPO) needs a value model, such as value: {}", shown=False
            )
        elif stage.samples == 1:
            yield stage.mistake("samples", "one completion has nothing to be compared with; use 2 or more, or advantage: gae")
        return
    if not gae:
        yield stage.mistake("value", f"advantage {stage.advantage} does not ask it; set advantage: gae, or remove it", "set")
    if stage.samples == 1 and stage.refill:
        yield stage.mistake("refill", "one completion never differs from its group: every prompt would be refilled; set false")
    if stage.value.path is not None and (problem := judge_problem(stage.value.path)):
        yield stage.mistake("value.path", problem, stage.value.path)


def _lengths(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.max_prompt + stage.max_tokens > stage.max_length:
        text = f"max_prompt + max_tokens = {stage.max_prompt + stage.max_tokens} is more; raise it or lower one of them"
        yield stage.mistake("max_length", text)


def _micro_loss(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.loss != "token" and stage.batch % stage.loss_micro_batch:
        text = f"batch {stage.batch} is no multiple of it, and loss {stage.loss} is defined by it; use a divisor of the batch"
        yield stage.mistake("loss_micro_batch", text)


def _task(stage: Values, setting: Setting) -> Iterator[Mistake]:
    if stage.data is None and stage.task not in TASKS:
        yield stage.mistake(
            "task", f"has no data of its own{nearest(stage.task, TASKS)}; known are {', '.join(TASKS)}, or set data"
        )


TASKS = ("gsm8k", "math", "sums")
"""Tasks of `evaluate` that need no `data`."""

Check = Callable[[Values, Setting], Iterator[Mistake]]
_TRAIN: tuple[Check, ...] = (_duration, _batch, _data, _start, _lora)
RECIPE_CHECKS: tuple[Check, ...] = (_model, _template, _needs_template)
CHECKS: Mapping[str, tuple[Check, ...]] = {
    "base": _TRAIN,
    "sft": (*_TRAIN, _micro_loss),
    "dpo": _TRAIN,
    "rm": _TRAIN,
    "rlvr": (_duration, _rollouts, _batch, _data, _start, _lora, _lengths, _value_model, _judge, _verifier),
    "evaluate": (_data, _judge, _best_of, _verifier, _task),
}
