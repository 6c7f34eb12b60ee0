"""The command line made from option classes, and the arguments that several commands share.

`with_options` turns a function with a parameter `options` into one that typer reads: every field of the option class
becomes an option of the command, with the type, default, bounds and help that the class declares (tulu/config/options.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer

from tulu.config.options import Option

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a built-in one by name.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Fields to override.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan, and stop.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of run directories.")]
RUNS = Path("runs")


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option for each field of its option class, in place of its parameter `options`."""
    options = get_type_hints(command)["options"]

    def run(**given: Any) -> None:
        chosen = {field.name: given.pop(field.name) for field in fields(options)}
        # An option that may be given several times arrives as a list, or as None where it is not given.
        values = {name: tuple(value or ()) if name in several else value for name, value in chosen.items()}
        command(**given, options=options(**values))

    hints = get_type_hints(options, include_extras=True)
    several = {name for name, hint in hints.items() if get_origin(get_args(hint)[0]) is tuple}
    parameters = list(_parameters(command, options, hints))
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters(command: Callable[..., None], options: type[Any], hints: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in signature(command).parameters.values():
        if parameter.name == "options":
            yield from (_parameter(field, hints[field.name]) for field in fields(options))
        else:
            yield parameter.replace(kind=Parameter.KEYWORD_ONLY)


def _parameter(field: Field[Any], hint: Any) -> Parameter:
    """A typer option made from `name: Annotated[TYPE, Option(...)] = DEFAULT`."""
    kind, option = get_args(hint)
    assert isinstance(option, Option)
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    # Without a spelling, typer would add --no-NAME to every option that is true or false.
    flag = option.flag or f"--{field.name.replace('_', '-')}"
    declared = typer.Option(flag, help=option.help, min=_bound(option.min, kind), max=_bound(option.max, kind))
    default = Parameter.empty if field.default is MISSING else None if field.default == () else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared])


def _bound(bound: float | None, kind: Any) -> float | None:
    """The bound as typer shows it: a whole number beside an option that is one."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return int(bound) if bound is not None and int in kinds else bound
