"""Mistakes that no single field can refuse: a batch that does not divide, a file that is not there, and the like.

Every check runs on every section, and ends where it reads a field that the section lacks or that is wrong by itself; so
one mistake never hides another.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from tulu.config.algorithm_checks import ALGORITHM_CHECKS
from tulu.config.batch_checks import batch, batch_tokens, drop_equal, micro_loss
from tulu.config.batch_checks import micro_batch as micro_batch
from tulu.config.environment_checks import environment_checks
from tulu.config.locate import model_problem, reward_model_problem, source_problem, start_problem
from tulu.config.merge_checks import merged_models
from tulu.config.mistakes import MISSING, Mistake, section_at
from tulu.config.mistakes import Path as Key
from tulu.config.parts import VerifierSettings, section_in, with_own_rows
from tulu.config.recipe_stages import stages_in
from tulu.config.schema import PLANNED, Recipe
from tulu.config.stage_checks import stage_names, stage_start
from tulu.config.suite_checks import evaluated_suite
from tulu.config.suite_tasks import suite_tasks
from tulu.config.tasks import TASKS
from tulu.config.template_checks import recipe_template, reward_models_template, stage_template
from tulu.config.training import sharding_of
from tulu.config.unknown import unknown_mistakes
from tulu.config.values import Unread, Values
from tulu.config.watch_checks import eval_data, eval_every, eval_task
from tulu.errors import RecipeError, nearest
from tulu.verifiers.contract import NO_SETTINGS, Mode
from tulu.verifiers.registry import check_name
from tulu.verifiers.reward_model import NAME as REWARD_MODEL


def combination_mistakes(raw: Mapping[str, Any], wrong: Collection[Key], processes: Mapping[str, int]) -> list[Mistake]:
    """Every impossible combination in a recipe; the keys in `wrong` have mistakes of their own already.

    `processes` says how many processes train a stage, by its key or that of its row: 1 where it says nothing.
    """
    stages = stages_in(raw)
    sections: dict[str, Any] = {stage.row.name: raw[stage.row.name] for stage in stages}
    mistakes: list[Mistake] = []
    for stage in (None, *stages):
        given = stage.section if stage else raw
        fields, declared = _valid_fields(stage.path if stage else (), given, wrong)
        count = processes.get(stage.key, processes.get(stage.row.name, 1)) if stage else 1
        values = Values(stage, fields, declared, sections, count, given)
        for check in STAGE_CHECKS if stage else RECIPE_CHECKS:
            with suppress(Unread):
                mistakes.extend(check(values))
    return mistakes


def _valid_fields(path: Key, raw: Mapping[str, Any], wrong: Collection[Key]) -> tuple[dict[str, Any], dict[str, FieldInfo]]:
    """The fields of a section that are right by themselves, as a recipe holds them, and all that it may have."""
    section = section_at(path)
    assert section is not None
    bad = {key[len(path)] for key in wrong if key[: len(path)] == path and len(key) > len(path)}
    if "env" in section.model_fields and raw.get("data") is None:
        raw = with_own_rows(dict(raw))
    fields: dict[str, Any] = {}
    for key, info in section.model_fields.items():
        if key in bad or (key not in raw and info.is_required()):
            continue
        plain = section is Recipe and section_in(info.annotation) is not None
        fields[key] = raw.get(key) if plain else _validated(info, raw[key]) if key in raw else info.get_default()
    return fields, section.model_fields


def _validated(info: FieldInfo, raw: Any) -> Any:
    if info.annotation in (int, float, str, bool) or raw is None:
        return raw
    return TypeAdapter(info.rebuild_annotation()).validate_python(raw)


def _planned(stage: Values) -> Iterator[Mistake]:
    for planned in sorted(PLANNED):
        section, _, key = planned.partition(".")
        if section == stage.stage.name and stage.fields.get(key, default := stage.declared[key].default) != default:
            yield stage.mistake(key, f"this field is planned, and nothing reads it yet; leave it out, or at {default}")


def _duration(stage: Values) -> Iterator[Mistake]:
    if (stage.epochs is None) == (stage.steps is None):
        given = "neither is given" if stage.epochs is None else f"both are given ({stage.epochs:g} and {stage.steps})"
        yield stage.mistake("epochs", f"give exactly one of epochs and steps; {given}", MISSING)


def _sharding(stage: Values) -> Iterator[Mistake]:
    if stage.zero is not None and "sharding" in stage.given and stage.sharding != (same := sharding_of(stage.zero)):
        text = f"is the old spelling of sharding: {same}, but sharding is {stage.sharding}; set {stage.name}.sharding alone"
        yield stage.mistake("zero", text)


def _data(stage: Values) -> Iterator[Mistake]:
    # What is wrong with rows that an environment brings along is told of its path, which names them.
    env = stage.fields.get("env")
    seen: dict[tuple[str, str, str | None, str | None], int] = {}
    for index, source in enumerate(stage.data or ()):
        key = (source.name, source.split, source.subset, source.revision)
        if key in seen:
            text = f"is also item {seen[key]} of the mix; list a data set once, with fraction: 2.0 for two copies"
            yield stage.mistake(f"data.{index}.name", text, source.name)
        seen.setdefault(key, index)
        if (env is None or source.name != env.path) and (problem := source_problem(source.name)):
            yield stage.mistake(f"data.{index}.name", problem, source.name)


def _model(recipe: Values) -> Iterator[Mistake]:
    if recipe.model is None and recipe.base is None:
        starts = [stage.section.get("start") for stage in stages_in(recipe.sections) if stage.row.trains]
        if not all(starts):
            yield recipe.mistake(
                "model", "missing; name a model folder or hub model, or add a base section that makes one", MISSING
            )
    elif recipe.model is not None and recipe.base is not None:
        yield recipe.mistake("model", "the base section makes another model; keep one of model and base")
    elif recipe.model is not None:
        trained = any(stage.row.trains for stage in stages_in(recipe.sections))
        if problem := (start_problem if trained else model_problem)(recipe.model):
            yield recipe.mistake("model", problem)


def _reward_model(stage: Values) -> Iterator[Mistake]:
    reward_model = stage.reward_model
    if reward_model is None:
        return
    if reward_model.path is not None:
        if problem := reward_model_problem(reward_model.path):
            yield stage.mistake("reward_model.path", problem, reward_model.path)
    elif not stage.stage.trains:
        yield stage.mistake("reward_model.path", "missing; name a reward model that is there before the recipe runs", MISSING)
    elif "rm" not in stage.sections:
        yield stage.mistake("reward_model.path", "missing; name a reward model, or add an rm section that trains one", MISSING)


def _best_of(stage: Values) -> Iterator[Mistake]:
    if stage.best_of is None:
        if stage.reward_model is not None:
            yield stage.mistake("reward_model", "it picks among several answers; set best_of, such as 16", "set")
        return
    if stage.reward_model is None:
        yield stage.mistake("best_of", "nothing picks among the answers; set reward_model")
    if stage.temperature == 0:
        yield stage.mistake("temperature", f"all {stage.best_of} answers would be the same; set it above 0, such as 1.0")


def _verifier(stage: Values) -> Iterator[Mistake]:
    if stage.verifier is not None and stage.verifier.lower() == REWARD_MODEL:
        if not stage.stage.trains:
            text = "a reward model cannot say which answers are right; name a verifier (best_of and reward_model pick by it)"
            yield stage.mistake("verifier", text)
        elif stage.reward_model is None:
            text = f"there is no reward model; set {stage.name}.reward_model.path (`tulu rm` trains one)"
            yield stage.mistake("verifier", text)
    elif stage.verifier is not None:
        try:
            mode: Mode = stage.verifier_mode if "verifier_mode" in stage.declared else "strict"
            given = stage.fields.get("verifier_settings")
            check_name(stage.verifier, mode, given.settings if isinstance(given, VerifierSettings) else NO_SETTINGS)
        except RecipeError as error:
            yield stage.mistake("verifier", str(error))


def _lora(stage: Values) -> Iterator[Mistake]:
    if stage.lora is None:
        return
    if stage.stage.makes_model:
        yield stage.mistake("lora", "all weights of a new model are trained; remove lora", "set")
    if isinstance(stage.lora.targets, tuple) and "lm_head" in stage.lora.targets:
        text = "the output head is read in chunks and takes no adapter; remove lm_head"
        yield stage.mistake("lora.targets", text, list(stage.lora.targets))


def _rollouts(stage: Values) -> Iterator[Mistake]:
    if stage.batch != stage.prompts * stage.samples:
        product = f"{stage.prompts} × {stage.samples} = {stage.prompts * stage.samples}"
        yield stage.mistake("batch", f"batch is prompts × samples = {product}; change one of the three")
    elif stage.prompts % stage.minibatches:
        text = f"{stage.prompts} prompts do not divide into {stage.minibatches} minibatches; use a divisor of {stage.prompts}"
        yield stage.mistake("minibatches", text)


def _resources(stage: Values) -> Iterator[Mistake]:
    engines, width = stage.resources.engines, stage.resources.tensor_parallel
    if engines and stage.engine == "transformers":
        text = "engines in processes of their own are vLLM; set engine to vllm or auto, or resources.engines to 0"
        yield stage.mistake("engine", text)
    if width > 1 and not engines:
        text = "the engine of the training process uses one GPU; set resources.engines to 1 or more, or tensor_parallel to 1"
        yield stage.mistake("resources.tensor_parallel", text, width)
    if stage.resources.colocated and not engines:
        text = "the engine of the training process is on its GPU anyway; set resources.engines to 1 or more, or remove colocated"
        yield stage.mistake("resources.colocated", text, True)
    if stage.resources.colocated and stage.max_staleness:
        text = "engines on the learners' GPUs sleep while those train and cannot run ahead; set it to 0, or remove colocated"
        yield stage.mistake("max_staleness", text, stage.max_staleness)
    if stage.resources.adapters == "apart" and (stage.lora is None or not engines):
        text = "only engines of their own take them, and there must be some; set lora and resources.engines, or merged"
        yield stage.mistake("resources.adapters", text, "apart")
    if stage.resources.gpu_share is not None and stage.engine == "transformers":
        text = "only vLLM is given a share of a GPU; set engine to vllm or auto, or remove gpu_share"
        yield stage.mistake("resources.gpu_share", text, stage.resources.gpu_share)


def _lengths(stage: Values) -> Iterator[Mistake]:
    if stage.max_prompt + stage.max_tokens > stage.max_length:
        text = f"max_prompt + max_tokens = {stage.max_prompt + stage.max_tokens} is more; raise it or lower one of them"
        yield stage.mistake("max_length", text)


def _task(stage: Values) -> Iterator[Mistake]:
    if stage.data is None and (suite := suite_tasks().get(stage.task)):
        own = f"tasks: {{{stage.task}: {{from: {suite}}}}}"
        text = f"is a task of a suite; set evaluate.suite to {suite}, or to a file of yours with {own}, or set data"
        yield stage.mistake("task", text)
    elif stage.data is None and stage.task not in TASKS:
        yield stage.mistake(
            "task", f"has no data of its own{nearest(stage.task, TASKS)}; known are {', '.join(TASKS)}, or set data"
        )


Check = Callable[[Values], Iterator[Mistake]]
RECIPE_CHECKS: tuple[Check, ...] = (
    _model,
    stage_names,
    recipe_template,
    lambda recipe: unknown_mistakes(recipe.unknown, recipe.sections),
)
STAGE_CHECKS: tuple[Check, ...] = (
    _planned,
    stage_template,
    reward_models_template,
    _duration,
    _rollouts,
    batch_tokens,
    batch,
    _sharding,
    _data,
    stage_start,
    _lora,
    _lengths,
    micro_loss,
    *ALGORITHM_CHECKS,
    environment_checks,
    drop_equal,
    _resources,
    _reward_model,
    _best_of,
    _verifier,
    _task,
    evaluated_suite,
    merged_models,
    eval_every,
    eval_task,
    eval_data,
)
