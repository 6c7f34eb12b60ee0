"""Nothing unread: code reads every field of a recipe, every field of an option class and every argument of a command.

mypy types the whole package, so that `policy.tokenizer` is not taken for a reader of the recipe's field `tokenizer`.
"""

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from mypy.build import build
from mypy.find_sources import create_source_list
from mypy.nodes import CallExpr, Expression, MemberExpr, NameExpr, SetExpr, StrExpr
from mypy.options import Options
from mypy.types import AnyType, Instance, Type, UnionType, get_proper_type

from tulu.config.document import SECTIONS
from tulu.config.options import PlanOptions
from tulu.config.parts import Section
from tulu.config.schema import PLANNED, Recipe, TrainStage
from tulu.config.stages import STAGES, TRAINING
from tulu.evaluation.options import EvaluateOptions, SampleOptions
from tulu.reward_models.options import RewardBenchOptions

ROOT = Path(__file__).resolve().parents[1]
ABOUT_RECIPES = ("config.algorithm_checks", "config.checks", "config.document", "commands.data")
"""Modules that only check or describe a recipe; to be read here is not to have an effect."""
PLAN = (
    "commands.plan",
    "commands.splits",
    *(
        f"config.{module}"
        for module in ("decoding", "estimate", "facts", "fitting", "mixes", "operations", "plan", "sampling_time", "sizes")
    ),
)
"""Modules of `tulu plan`, which reads recipes to describe them, and options to act on them."""
OF_NO_EFFECT = {
    **dict.fromkeys(
        (f"{section}.zero" for section in ("Every training stage", *(row.name for row in TRAINING))),
        "the old spelling of sharding, which TrainStage reads when it is made",
    ),
    "rlvr.max_length": "bounds max_prompt + max_tokens, which tulu/config/checks.py compares with it",
    "base.lora": "tulu/config/checks.py refuses it: all weights of a new model are trained",
    **{
        f"{heading}.released_values": "what a released run set and nothing here reads is kept there, so that its recipe is whole"
        for heading in ("Every training stage", *STAGES)
    },
}
"""Fields that no stage reads for a reason."""


def name_of(section: type[Any]) -> str:
    return f"{section.__module__}.{section.__name__}"


@pytest.fixture(scope="module")
def reads() -> dict[bool, set[tuple[str, str]]]:
    """(class, attribute) pairs that code of the package reads: by whether the modules of the plan count."""
    return {plan: typed_reads((*ABOUT_RECIPES, *(() if plan else PLAN))) for plan in (False, True)}


def typed_reads(without: tuple[str, ...]) -> set[tuple[str, str]]:
    options = Options()
    options.python_version = (3, 11)
    options.explicit_package_bases = options.namespace_packages = True
    options.mypy_path = [str(ROOT)]
    options.follow_imports = "skip"
    options.incremental = False
    options.export_types = options.preserve_asts = options.check_untyped_defs = True
    left_out = {f"tulu.{module}" for module in without}
    sources = [source for source in create_source_list([str(ROOT / "tulu")], options) if source.module not in left_out]
    types = build(sources, options).types
    return {read for expression in types for read in reads_in(expression, types)}


def reads_in(expression: Expression, types: dict[Expression, Type]) -> set[tuple[str, str]]:
    """What `x.name` reads, or `x.model_dump(include={"name"})`, by the type of x."""
    if isinstance(expression, MemberExpr):
        receiver, names = expression.expr, [expression.name]
    elif isinstance(expression, CallExpr) and isinstance(expression.callee, MemberExpr):
        receiver = expression.callee.expr
        sets = [argument for argument in expression.args if isinstance(argument, SetExpr)]
        names = [item.value for entry in sets for item in entry.items if isinstance(item, StrExpr)]
    else:
        return set()
    return {(owner, name) for owner in owners(receiver, types) for name in names}


def owners(receiver: Expression, types: dict[Expression, Type]) -> list[str]:
    """The classes of an expression; one that is called `section` and has no type is a section of any stage that trains."""
    if receiver not in types:
        return []
    kind = get_proper_type(types[receiver])
    if isinstance(kind, AnyType) and isinstance(receiver, MemberExpr | NameExpr) and receiver.name.strip("_") == "section":
        return [name_of(TrainStage)]
    kinds = kind.items if isinstance(kind, UnionType) else [kind]
    return [item.type.fullname for item in map(get_proper_type, kinds) if isinstance(item, Instance)]


def unread(section: type[Section], reads: set[tuple[str, str]]) -> list[str]:
    """Fields that are read neither as the section's own, nor as those of a class above or below it."""
    family = [*section.__mro__, *(other for other in SECTIONS.values() if issubclass(other, section))]
    return [field for field in section.model_fields if not any((name_of(member), field) in reads for member in family)]


@pytest.mark.parametrize(("heading", "section"), SECTIONS.items(), ids=SECTIONS)
def test_every_recipe_field_has_a_reader(heading: str, section: type[Section], reads: dict[bool, set[tuple[str, str]]]) -> None:
    without_reader = {f"{heading}.{field}" for field in unread(section, reads[False])} - set(OF_NO_EFFECT)
    if section is Recipe:
        # The stages are read by their names in the stage table.
        without_reader -= {f"{heading}.{name}" for name in STAGES}
    planned = {field for field in PLANNED if field.startswith(f"{heading}.")}
    assert without_reader == planned, "give the field a reader or put it into PLANNED; take what has a reader out of it"


@pytest.mark.parametrize(
    "options", [PlanOptions, SampleOptions, EvaluateOptions, RewardBenchOptions], ids=lambda cls: cls.__name__
)
def test_every_option_reaches_code(options: type[Any], reads: dict[bool, set[tuple[str, str]]]) -> None:
    assert [field.name for field in fields(options) if (name_of(options), field.name) not in reads[True]] == []


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "tulu" / "commands").glob("*.py")), ROOT / "tulu" / "cli.py"], ids=lambda path: path.stem
)
def test_every_argument_of_a_command_is_used(path: Path) -> None:
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(function, ast.FunctionDef):
            used = {node.id for statement in function.body for node in ast.walk(statement) if isinstance(node, ast.Name)}
            declared = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
            assert declared <= used, f"{path.name}: {function.name} ignores {', '.join(declared - used)}"
