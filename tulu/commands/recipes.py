"""`tulu recipes`: the built-in recipes, and every field that a recipe may have."""

from typing import Annotated

import typer


def recipes(
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a recipe, for editors.")] = False,
    fields: Annotated[bool, typer.Option("--fields", help="Print every field as Markdown tables.")] = False,
) -> None:
    """List the built-in recipes."""
    if schema or fields:
        from tulu.config.document import json_schema, markdown

        typer.echo(json_schema() if schema else markdown(), nl=False)
        return
    from rich.console import Console
    from rich.table import Table

    from tulu.config.load import built_in
    from tulu.config.stages import STAGES
    from tulu.config.yaml_text import read_yaml

    table = Table(box=None, pad_edge=False)
    for column in ("recipe", "stages", "about"):
        table.add_column(column)
    for path in built_in():
        comments = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
        about = next(line for line in comments if line and not line.startswith("yaml-language-server"))
        recipe = read_yaml(path).value
        table.add_row(path.stem, " ".join(stage for stage in STAGES if stage in recipe), about)
    Console().print(table)
