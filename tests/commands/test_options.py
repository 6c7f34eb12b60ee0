"""Options of a command made from an option class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from tulu.commands.options import with_options
from tulu.config.options import Option


@dataclass(frozen=True)
class Kinds:
    """One option of every kind that commands have."""

    rows: Annotated[tuple[str, ...], Option("Needed, and may be given again.")]
    files: Annotated[tuple[Path, ...], Option("May be given again.")] = ()
    count: Annotated[int | None, Option("A whole number.", min=2, max=9)] = None
    share: Annotated[float, Option("A number.", min=0.5)] = 1.0
    mode: Annotated[Literal["a", "b"], Option("A choice.")] = "a"
    on_disk: Annotated[bool, Option("A flag.")] = False
    add_it: Annotated[bool, Option("Both ways.", flag="--add/--no-add")] = True


def call(*arguments: str) -> tuple[int, str, list[tuple[str, Kinds]]]:
    """(exit code, output, what the command got)."""
    calls: list[tuple[str, Kinds]] = []

    def command(name: str, *, options: Kinds, last: Annotated[str, typer.Option()] = "z") -> None:
        """A command."""
        calls.append((name + last, options))

    app = typer.Typer()
    app.command()(with_options(command))
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120"})
    return result.exit_code, result.output, calls


def test_defaults_are_those_of_the_class() -> None:
    assert call("x", "--rows", "r") == (0, "", [("xz", Kinds(rows=("r",)))])


def test_every_option_reaches_the_class() -> None:
    given = "--rows r --rows s --files f --count 3 --share 0.5 --mode b --on-disk --no-add --last y".split()
    expected = Kinds(rows=("r", "s"), files=(Path("f"),), count=3, share=0.5, mode="b", on_disk=True, add_it=False)
    assert call("x", *given) == (0, "", [("xy", expected)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing option '--rows'"),
        (("--rows", "r", "--count", "1"), "greater than or equal to 2"),
        (("--rows", "r", "--share", "0.4"), "greater than or equal to 0.5"),
        (("--rows", "r", "--mode", "c"), "'c' is not one of"),
        (("--rows", "r", "--no-on-disk"), "No such option"),
    ],
)
def test_bounds_and_choices_are_those_of_the_class(arguments: tuple[str, ...], message: str) -> None:
    code, output, calls = call("x", *arguments)
    assert (code, calls) == (2, [])
    assert message in output


def test_help_shows_bounds_and_defaults() -> None:
    output = call("--help")[1]
    for text in ("A command.", "2<=x<=9", "Needed, and may be given again.", "[default: 1.0]"):
        assert text in output
