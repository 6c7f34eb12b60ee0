"""`tulu data`: what the mixes of a recipe hold."""

from pathlib import Path
from typing import Annotated

import typer

from tulu.commands.options import Overrides, RecipeArgument
from tulu.errors import RecipeError


def data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    decontaminate: Annotated[bool, typer.Option("--decontaminate", help="Also search for held-out questions.")] = False,
    against: Annotated[list[str] | None, typer.Option(help="Held-out questions; default: the recipe's evaluation.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder for copies of the sources without what gives them away.")] = None,
) -> None:
    """What the mixes of a recipe really hold: counts, lengths, a masked sample in colour."""
    from tulu.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if not decontaminate and (against or clean):
        raise RecipeError("--against and --clean belong to --decontaminate; add it")
    from tulu.commands.data_report import report

    report(loaded, decontaminate, against or (), clean)
