"""The command line made from option classes, and the arguments that several commands share.

`with_options` turns a function with parameters of option classes into one that typer reads: every field of such a class
becomes an option of the command, with the type, default, bounds and help that the class declares (tulu/config/options.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from tulu.config.options import Option


def recipe_names(incomplete: str) -> list[str]:
    """The built-in recipes that a shell completes a word to; files it completes by itself."""
    folder = Path(__file__).resolve().parents[1] / "recipes"
    return sorted(file.stem for file in folder.glob("*.yaml") if file.stem.startswith(incomplete))


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe file, or a built-in one by name.", autocompletion=recipe_names)
]
GPUS_HELP = "Train on so many GPUs of this machine; where it has none, as so many CPU processes."
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Fields to override.")]


@dataclass(frozen=True)
class RunOptions:
    """How the stages of a recipe are run."""

    dry_run: Annotated[bool, Option("Print the resolved recipe and the plan, and stop.")] = False
    fresh: Annotated[bool, Option("Start over instead of resuming.")] = False
    runs: Annotated[Path, Option("Folder of run directories.")] = Path("runs")
    tiny: Annotated[bool, Option("Try it: a tiny random model, made-up rows, 3 steps a stage, as NAME-tiny.")] = False


@dataclass(frozen=True)
class TrainOptions(RunOptions):
    """How the stages that train are run."""

    gpus: Annotated[int | None, Option(GPUS_HELP, min=1)] = None


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option for each field of its option classes, in place of the parameters that have these classes."""
    hints = get_type_hints(command)
    classes: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    @wraps(command)
    def run(**given: Any) -> None:
        for name, options in classes.items():
            values = {field.name: given.pop(field.name) for field in fields(options)}
            # An option that is not given arrives as None where its default is empty, and a repeated one as a list.
            values = {
                key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if value is not None
            }
            given[name] = options(**values)
        command(**given)

    parameters = list(_parameters(command, classes))
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters(command: Callable[..., None], classes: dict[str, Any]) -> Iterator[Parameter]:
    for parameter in signature(command).parameters.values():
        if parameter.name in classes:
            hints = get_type_hints(classes[parameter.name], include_extras=True)
            yield from (_parameter(field, hints[field.name]) for field in fields(classes[parameter.name]))
        else:
            yield parameter.replace(kind=Parameter.KEYWORD_ONLY)


def _parameter(field: Field[Any], hint: Any) -> Parameter:
    """A typer option made from `name: Annotated[TYPE, Option(...)] = DEFAULT`."""
    kind, option = get_args(hint)
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    # Without a spelling, typer would add --no-NAME to every option that is true or false.
    flag = option.flag or f"--{field.name.replace('_', '-')}"
    flags = [flag, option.old_flag] if option.old_flag else [flag]
    declared = typer.Option(*flags, help=option.help, min=option.min, max=option.max)
    default = Parameter.empty if field.default is MISSING else None if field.default == () else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declared])
