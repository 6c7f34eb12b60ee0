"""What `tulu recipes` prints: the built-in recipes."""

from rich.console import Console
from rich.table import Table

from tulu.config.load import built_in
from tulu.config.stages import STAGES
from tulu.config.yaml_text import read_yaml


def show_recipes() -> None:
    """Print a line for each built-in recipe: its name, its stages, and the first sentence of its comment."""
    table = Table("recipe", "stages", "about", box=None, pad_edge=False)
    for path in built_in():
        comments = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
        about = next(line for line in comments if line and not line.startswith("yaml-language-server"))
        recipe = read_yaml(path).value
        table.add_row(path.stem, " ".join(stage for stage in STAGES if stage in recipe), about)
    Console().print(table)
