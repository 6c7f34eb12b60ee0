"""`tulu verifiers`: which there are, what a ground truth looks like, and an example of each."""

import json

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tulu.errors import RecipeError, TuluError
from tulu.verifiers.contract import NO_SETTINGS, Case, grade_safely
from tulu.verifiers.examples import example_of
from tulu.verifiers.registry import VERIFIERS, find


def show_verifiers(name: str | None) -> None:
    """Print all of them as a table, or one with its example and the verdict on it. Raises RecipeError for an unknown one."""
    if name is None:
        Console().print(_table())
        typer.echo(
            "tulu verifiers NAME shows an example; a file of your own is a verifier as path/to/mine.py:score (docs/verifiers.md)"
        )
        return
    if name.lower() not in VERIFIERS:
        find(name)  # says which name was meant
        raise RecipeError(f"{name}: is a file of your own, of which nothing is known here")
    _show_one(name.lower())


def _table() -> Table:
    table = Table(title=f"{len(VERIFIERS)} verifiers")
    for column in ("name", "scores", "ground truth", "modes", "here"):
        table.add_column(column, overflow="fold")
    for name in sorted(VERIFIERS):
        example = example_of(name)
        table.add_row(
            name, escape(example.scores), escape(example.truth), ", ".join(_modes(name)), escape(_obstacle(name)) or "ready"
        )
    return table


def _modes(name: str) -> list[str]:
    verifier = VERIFIERS[name]
    later = {"tulu3": verifier.tulu3, "tulu3-2024": verifier.tulu3_2024}
    return ["strict", *(mode for mode, grade in later.items() if grade is not None)]


def _obstacle(name: str) -> str:
    """Why a verifier cannot run on this machine; empty where it can."""
    try:
        ready = find(name).ready
        if ready is not None:
            ready(NO_SETTINGS)
    except TuluError as error:
        return str(error).splitlines()[0].removeprefix(f"verifier {name!r} ")
    return ""


def _show_one(name: str) -> None:
    example = example_of(name)
    row = {"messages": [{"role": "user", "content": "..."}], "ground_truth": example.gold, "dataset": name}
    typer.echo(f"{name}: {example.scores}")
    typer.echo(f"  modes         {', '.join(_modes(name))}")
    typer.echo(f"  ground truth  {example.truth}")
    typer.echo(f"  a row         {json.dumps(row, ensure_ascii=False)}")
    typer.echo("  a completion  " + example.answer.replace("\n", "\n                "))
    if obstacle := _obstacle(name):
        typer.echo(f"  here          {obstacle}")
        return
    case = Case(example.answer, example.gold, "", {"completion_tokens": 100, "ground_truth": example.gold})
    verdict = grade_safely(find(name).strict, case)
    score = "no score" if verdict.score is None else f"{verdict.score:g}"
    typer.echo(f"  its verdict   {score} ({verdict.status}{': ' + verdict.detail if verdict.detail else ''})")
