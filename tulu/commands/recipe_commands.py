"""The commands below `tulu recipes`, which lists the built-in recipes where none of them is given."""

from typing import Annotated

import typer

from tulu.commands.options import Overrides, RecipeArgument

recipe_commands = typer.Typer()
"""`tulu recipes`."""


@recipe_commands.callback(invoke_without_command=True)
def recipes(
    command: typer.Context,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a recipe, for editors.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="Print every field as Markdown tables.")] = False,
) -> None:
    """List the built-in recipes, or show one."""
    if command.invoked_subcommand is not None:
        return
    if schema or fields:
        from tulu.config.document import json_schema, markdown

        typer.echo(json_schema() if schema else markdown(), nl=False)
        return
    from tulu.commands.recipes import show_recipes

    show_recipes()


@recipe_commands.command("show")
def show(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    diff: Annotated[str | None, typer.Option(metavar="RECIPE", help="Print only what differs from this recipe.")] = None,
) -> None:
    """Every field of a recipe: its value, where that comes from, and the source."""
    from tulu.commands.recipes import show_difference, show_recipe

    if diff is None:
        show_recipe(recipe, overrides or ())
    else:
        show_difference(recipe, diff, overrides or ())
