"""The `tulu` command: one command a stage, nothing heavy imported before a stage starts.

Everything a user can get wrong leaves through one boundary: a message with the cure and exit code 2; a full disk or
Ctrl-C a message as well. A traceback means a bug of this project.
"""

import errno
import logging
import os
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from tulu.commands import tools as cli_tools
from tulu.errors import DataError, RecipeError, TuluError

if TYPE_CHECKING:
    from tulu.config.schema import Recipe

STAGE_MODULES = {
    "base": "tulu.stages.base",
    "sft": "tulu.stages.sft",
    "dpo": "tulu.stages.dpo",
    "rm": "tulu.reward_models.training",
    "rlvr": "tulu.stages.rlvr",
    "evaluate": "tulu.evaluation.evaluate",
}
DEFAULT_RECIPE = "quickstart"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_IN_THE_WAY = {errno.ENOTDIR, errno.EEXIST}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS, *_IN_THE_WAY}


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
            # Every process meets the same mistake in a recipe or its data; one says so.
            if _rank() == 0 or not isinstance(error, (RecipeError, DataError)):
                _complain(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            if _rank() == 0:
                _complain("interrupted; run the same command again: what can be resumed is")
            raise typer.Exit(130) from error
        except OSError as error:
            if error.errno not in _NO_SPACE | _NOT_ALLOWED:
                raise
            cure = "free some space" if error.errno in _NO_SPACE else "make it writable, or name another place"
            cure = "a file stands where a folder belongs; name another place" if error.errno in _IN_THE_WAY else cure
            where = f"{error.filename}: " if error.filename else ""
            _complain(f"{where}{error.strerror}; {cure} and run the same command again")
            raise typer.Exit(2 if error.errno in _IN_THE_WAY else 1) from error


app = typer.Typer(
    name="tulu",
    cls=Boundary,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Post-training of open language models: SFT, DPO, reward models, RLVR and evaluation.",
    epilog="Any recipe field is overridden as key.path=value, such as sft.batch=64.",
)

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or a built-in one by name.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE", help="Fields to override.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan, and stop.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of run directories.")]
RUNS = Path("runs")


@app.callback(invoke_without_command=True)
def _begin(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"tulu {installed('tulu')}")
        raise typer.Exit
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("tulu")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO if _rank() == 0 else logging.ERROR)
    log.propagate = False


@app.command(hidden=True)
def base(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Train a new model from scratch on plain text."""
    _stage("base", recipe, overrides, dry_run, fresh, runs)


@app.command()
def sft(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Supervised fine-tuning on the assistant's turns."""
    _stage("sft", recipe, overrides, dry_run, fresh, runs)


@app.command()
def dpo(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Preference optimisation, from the SFT model."""
    _stage("dpo", recipe, overrides, dry_run, fresh, runs)


@app.command()
def rm(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Train a reward model on preference pairs, from the SFT model."""
    _stage("rm", recipe, overrides, dry_run, fresh, runs)


@app.command()
def rlvr(
    recipe: Annotated[str, typer.Argument(metavar="[RECIPE]", help="A recipe; without one, the quickstart's.")] = DEFAULT_RECIPE,
    overrides: Overrides = None,
    verifier: Annotated[str | None, typer.Option(help="Verifier of every row, instead of each row's own.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
    runs: Runs = RUNS,
) -> None:
    """Reinforcement learning with verifiable rewards, from the DPO model (else the SFT model)."""
    changes = list(overrides or [])
    if "=" in recipe:
        recipe, changes = DEFAULT_RECIPE, [recipe, *changes]
    # Without a recipe of one's own the result stays beside the quickstart's, not in its place.
    label = f"rlvr-{verifier.rpartition('/')[2].replace(':', '-')}" if recipe == DEFAULT_RECIPE and verifier else None
    if verifier is not None:
        changes.append(f"rlvr.verifier={verifier}")
    _stage("rlvr", recipe, changes, dry_run, fresh, runs, label)


@app.command()
def run(
    recipe: RecipeArgument, overrides: Overrides = None, dry_run: DryRun = False, fresh: Fresh = False, runs: Runs = RUNS
) -> None:
    """Every stage of a recipe, in order; run it again to resume."""
    from tulu.config.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if dry_run:
        cli_tools.show_plan(loaded)
        return
    from tulu.stages.pipeline import run_recipe

    run_recipe(loaded, runs, fresh)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL|RECIPE", help="A model, or a recipe with an evaluate section.")],
    overrides: Overrides = None,
    task: Annotated[str | None, typer.Option(help="gsm8k, math, sums, or any name for rows of your own.")] = None,
    data: Annotated[str | None, typer.Option(help="Rows with messages and ground_truth; default: the task's own.")] = None,
    verifier: Annotated[str | None, typer.Option(help="Default: the task's own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First rows only.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of an answer; default 512.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="0 is greedy, the default; with --best-of 1.0.")] = None,
    best_of: Annotated[int | None, typer.Option(min=2, help="Answers per problem, of which --reward-model picks one.")] = None,
    reward_model: Annotated[str | None, typer.Option(help="Picks the best of --best-of answers.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the result; default runs/evaluate/MODEL/TASK.")] = None,
    template: Annotated[str | None, typer.Option(help="Chat template; default: the tokenizer's own.")] = None,
    dry_run: DryRun = False,
    fresh: Fresh = False,
    runs: Runs = RUNS,
) -> None:
    """Accuracy on a task, with a 95 % interval."""
    options = {"verifier": verifier, "limit": limit, "max_tokens": max_tokens, "temperature": temperature}
    given = {**options, "best_of": best_of, "reward_model": reward_model}
    if model.endswith((".yaml", ".yml")):
        if out is not None:
            raise RecipeError("--out belongs to a model's evaluation; a recipe's result lies under --runs")
        fields = {f"evaluate.{name}": value for name, value in {"task": task, "data": data, **given}.items()}
        said = [f"{key}={value}" for key, value in {**fields, "template": template}.items() if value is not None]
        _stage("evaluate", model, [*(overrides or ()), *said], dry_run, fresh, runs)
        return
    if overrides or dry_run:
        what = f"{overrides[0]}: a model has no fields to override" if overrides else "--dry-run: a model has no plan"
        raise RecipeError(f"{what}; use the options of tulu evaluate --help, or name a recipe")
    if task is None:
        raise RecipeError("tulu evaluate MODEL needs --task NAME (gsm8k, math, sums, or any name together with --data FILE)")
    cli_tools.evaluate_model(model, task, data, template or "tokenizer", {**given, "out": out, "fresh": fresh, "runs": runs})


def _stage(
    stage: str, name: str, overrides: list[str] | None, dry_run: bool, fresh: bool, runs: Path, label: str | None = None
) -> None:
    """Resolve a recipe and run one of its stages, after the earlier ones that it has nothing else to start from."""
    from tulu.config.load import load_recipe, make_job, missing, section_of

    recipe = load_recipe(name, overrides or (), stage=stage)
    section_of(recipe, stage)
    earlier = missing(recipe, stage, runs)
    if dry_run:
        start = f"the model of {earlier[-1]}, which runs first" if earlier else make_job(recipe, stage, runs).start
        cli_tools.show_plan(recipe, only=stage, start=start)
        return
    for before in earlier:
        if _rank() == 0:
            typer.echo(f"{stage} has no model to start from yet: running {before} first", err=True)
        _run_stage(recipe, before, runs, fresh=False)
    _run_stage(recipe, stage, runs, fresh, label)


def _run_stage(recipe: "Recipe", stage: str, runs: Path, fresh: bool, label: str | None = None) -> None:
    from tulu.config.load import make_job

    job = make_job(recipe, stage, runs, fresh)
    if label is not None:
        job = replace(job, folder=job.folder.with_name(label))
    if job.start is not None and _rank() == 0:
        typer.echo(f"{stage}: starts from {job.start}", err=True)
    made = import_module(STAGE_MODULES[stage]).run(job)
    if _rank() == 0 and stage != "evaluate":
        typer.echo(f"{stage}: finished, {made}", err=True)


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


app.command()(cli_tools.rewardbench)
app.command()(cli_tools.verify)
app.command()(cli_tools.sample)
app.command()(cli_tools.data)
app.command()(cli_tools.recipes)
app.command()(cli_tools.plan)


def main() -> None:
    """The console script."""
    app()
