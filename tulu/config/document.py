"""Every field of a recipe for readers: the JSON schema that editors use, and Markdown tables for the documentation."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic.fields import FieldInfo

from tulu.config.merging import MergedModel
from tulu.config.parts import (
    EnvironmentSettings,
    Lora,
    Named,
    Resources,
    RewardModelSettings,
    RewardModelSignal,
    Section,
    SkipSteps,
    Source,
    TeacherSettings,
    ValueModelSettings,
    VerifierSettings,
)
from tulu.config.schema import PLANNED, Recipe, TrainStage
from tulu.config.stages import STAGES, resolve

SECTIONS: Mapping[str, type[Section]] = {
    "The recipe": Recipe,
    "Every training stage": TrainStage,
    **{name: resolve(stage.section) for name, stage in STAGES.items()},
    "Further fields of rlvr where it is a list": Named,
    "One data set of a mix": Source,
    "One model of merge.models": MergedModel,
    "skip_steps": SkipSteps,
    "rlvr.verifier_settings": VerifierSettings,
    "lora": Lora,
    "A reward model (evaluate.reward_model, rlvr.reward_model)": RewardModelSettings,
    "Further fields of rlvr.reward_model": RewardModelSignal,
    "rlvr.resources": Resources,
    "rlvr.env, an environment": EnvironmentSettings,
    "rlvr.value, the value model of PPO": ValueModelSettings,
    "rlvr.teacher, the model to distil from": TeacherSettings,
}
"""The section of each table by the table's heading, in order."""


def json_schema() -> str:
    """The schema that recipes/schema.json holds."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def markdown() -> str:
    """One table for each section: field, type, default, meaning. What all training stages share is listed once."""
    return "\n".join(_table(heading, section) for heading, section in SECTIONS.items())


def _table(heading: str, section: type[Section]) -> str:
    shared = {name for base in (TrainStage, RewardModelSettings) if base in section.__mro__[1:] for name in base.model_fields}
    schema = section.model_json_schema()
    rows = []
    for name, info in section.model_fields.items():
        if name not in shared:
            field = schema["properties"][name]
            meaning = " ".join((info.description or "").split())
            if f"{heading}.{name}" in PLANNED:
                meaning += " Planned: only the default is accepted yet."
            cells = (f"`{name}`", _type(field, schema), _default(field, info), meaning)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([f"### {heading}", "", "| field | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _default(field: Mapping[str, Any], info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    # A default that is made anew for each section does not stand in the schema.
    value = field["default"] if "default" in field else info.get_default(call_default_factory=True)
    return "null" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return {"Source": "data set"}.get(name, "section")
    if "anyOf" in field or "oneOf" in field:
        kinds = [_type(option, schema) for option in field.get("anyOf") or field["oneOf"]]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind != "null"))
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), schema)}"
    names = {"integer": "whole number", "string": "text", "boolean": "true, false", "object": "key: value"}
    kind = names.get(field.get("type", ""), field.get("type", "value"))
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return " ".join([kind, *(f"{sign} {field[name]:g}" for name, sign in bounds.items() if name in field)])
