"""The `tulu` command: one command for each stage, and the commands that train nothing.

Nothing heavy is imported before a command runs. Everything that a user can get wrong leaves through one boundary: as a
message with the cure and exit code 2. A full disk, a file that vanished and Ctrl-C become a message as well. A traceback
means a bug of this project.
"""

import errno
import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tulu.commands.data import data
from tulu.commands.evaluate import as_overrides, evaluate_model, is_recipe
from tulu.commands.options import RUNS, DryRun, Fresh, Overrides, RecipeArgument, Runs, with_options
from tulu.commands.plan import dry_run as show_dry_run
from tulu.commands.plan import plan
from tulu.commands.recipes import recipes
from tulu.commands.rewardbench import rewardbench
from tulu.commands.sample import sample
from tulu.commands.verify import verify
from tulu.config.stages import STAGES, Stage, resolve
from tulu.errors import DataError, RecipeError, TuluError
from tulu.evaluation.options import EvaluateOptions

if TYPE_CHECKING:
    from tulu.config.schema import Recipe

DEFAULT_RECIPE = "quickstart"
"""The recipe of `tulu rlvr` where none is named."""
_CURES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or name another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder belongs; name another place"),
    errno.ENOENT: "it vanished while the command ran; leave its folder in place",
}
"""What to do about an error of the operating system that is not a bug of this project."""


class Boundary(TyperGroup):
    """Where every failure that is not a bug becomes a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            if _rank() == 0:
                return super().invoke(ctx)
            # One process speaks for all; errors of the others still reach stderr.
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                return super().invoke(ctx)
        except TuluError as error:
            # Every process meets the same mistake in a recipe or its data; one process reports it.
            if _rank() == 0 or not isinstance(error, (RecipeError, DataError)):
                _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if _rank() == 0:
                _complain("interrupted; run the same command again: what can be resumed is")
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno not in _CURES:
                raise
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"{where}{error.strerror}; {_CURES[error.errno]} and run the same command again")
            raise typer.Exit(2 if error.errno in (errno.ENOTDIR, errno.EEXIST) else 1) from error


class StderrHandler(logging.Handler):
    """Writes the lines of the log to what is `sys.stderr` at that moment, which a caller may replace or close."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


app = typer.Typer(
    name="tulu",
    cls=Boundary,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Post-training of open language models: SFT, DPO, reward models, RLVR and evaluation.",
    epilog="Any recipe field is overridden as key.path=value, such as sft.batch=64.",
)


@app.callback(invoke_without_command=True)
def _begin(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"tulu {installed('tulu')}")
        raise typer.Exit
    handler = StderrHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("tulu")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if _rank() == 0 else logging.ERROR)
    log.propagate = False


def _stage_command(stage: Stage) -> Callable[..., None]:
    """The command of a stage that takes a recipe and nothing of its own."""

    def command(
        recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
    ) -> None:
        _run_from_recipe(stage, recipe, overrides, dry_run, fresh, runs)

    return command


def rlvr(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="A recipe; without one, the quickstart's.")] = DEFAULT_RECIPE,
    overrides: Overrides = None,
    verifier: Annotated[str | None, typer.Option(help="Verifier of every row, instead of each row's own.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
    runs: Runs = RUNS,
) -> None:
    """The command of the rlvr stage, which needs no recipe."""
    changes = list(overrides or [])
    if "=" in recipe:
        recipe, changes = DEFAULT_RECIPE, [recipe, *changes]
    # Where no recipe is named, the result lies beside the quickstart's and does not replace it.
    label = f"rlvr-{verifier.rpartition('/')[2].replace(':', '-')}" if recipe == DEFAULT_RECIPE and verifier else None
    if verifier is not None:
        changes.append(f"rlvr.verifier={verifier}")
    _run_from_recipe(STAGES["rlvr"], recipe, changes, dry_run, fresh, runs, label)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL|RECIPE", help="A model, or a recipe with an evaluate section.")],
    overrides: Overrides = None,
    *,
    options: EvaluateOptions,
    dry_run: DryRun = False,
    fresh: Fresh = False,
    runs: Runs = RUNS,
) -> None:
    """The command of the evaluate stage, which takes a model as well as a recipe."""
    if is_recipe(model):
        changes = [*(overrides or ()), *as_overrides(options)]
        _run_from_recipe(STAGES["evaluate"], model, changes, dry_run, fresh, runs)
    else:
        evaluate_model(model, overrides, dry_run, fresh, runs, options)


def run(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Every stage of a recipe, in order; run it again to resume."""
    from tulu.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if dry_run:
        show_dry_run(loaded)
        return
    from tulu.stages.pipeline import run_recipe

    run_recipe(loaded, runs, fresh)


def _run_from_recipe(
    stage: Stage, name: str, overrides: list[str] | None, dry_run: bool, fresh: bool, runs: Path, label: str | None = None
) -> None:
    """Resolve a recipe and run one of its stages, after the earlier stages whose model it needs and does not find."""
    from tulu.config.job import make_job, missing, section_of
    from tulu.config.load import load_recipe

    recipe = load_recipe(name, overrides or (), stage=stage.name)
    section_of(recipe, stage.name)
    earlier = missing(recipe, stage.name, runs)
    if dry_run:
        start = f"the model of {earlier[-1]}, which runs first" if earlier else make_job(recipe, stage.name, runs).start
        show_dry_run(recipe, only=stage.name, start=start)
        return
    for before in earlier:
        if _rank() == 0:
            typer.echo(f"{stage.name} has no model to start from yet: running {before} first", err=True)
        _run_stage(recipe, STAGES[before], runs, fresh=False)
    _run_stage(recipe, stage, runs, fresh, label)


def _run_stage(recipe: "Recipe", stage: Stage, runs: Path, fresh: bool, label: str | None = None) -> None:
    from tulu.config.job import make_job

    job = make_job(recipe, stage.name, runs, fresh)
    if label is not None:
        job = replace(job, folder=job.folder.with_name(label))
    if job.start is not None and _rank() == 0:
        typer.echo(f"{stage.name}: starts from {job.start}", err=True)
    result = resolve(stage.runner)(job)
    if _rank() == 0 and stage.trains:
        typer.echo(f"{stage.name}: finished, {result}", err=True)


def _rank() -> int:
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdigit() else 0


def _complain(message: str) -> None:
    """The message on stderr, its first line in red."""
    from rich.console import Console
    from rich.text import Text

    first, newline, rest = message.partition("\n")
    text = Text(first, style="bold red").append(newline + rest, style="not bold default")
    Console(stderr=True, soft_wrap=True).print(text)


def _add_commands() -> None:
    special = {"rlvr": rlvr, "evaluate": with_options(evaluate)}
    for stage in STAGES.values():
        app.command(stage.name, help=stage.help, hidden=stage.hidden)(special.get(stage.name) or _stage_command(stage))
    for command in (run, with_options(rewardbench), verify, with_options(sample), data, recipes, with_options(plan)):
        app.command(command.__name__)(command)


_add_commands()


def main() -> None:
    """The console script."""
    app()
