"""The `tulu` command: the arguments of every command, and the stages that a recipe's commands run.

Nothing heavy is imported before a command runs.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tulu.commands.boundary import Boundary, StderrHandler
from tulu.commands.daily import DAILY
from tulu.commands.options import Overrides, RecipeArgument, RunOptions, TrainOptions, with_options
from tulu.commands.ranks import done_by_ranks
from tulu.commands.recipe_commands import recipe_commands
from tulu.config.lock import only_user
from tulu.config.options import PlanOptions
from tulu.config.processes import is_main_process, leaving_at_once
from tulu.config.stages import STAGES, Stage, resolve
from tulu.errors import RecipeError
from tulu.evaluation.options import EvaluateOptions, SampleOptions
from tulu.reward_models.options import RewardBenchOptions
from tulu.verifiers.contract import Mode

if TYPE_CHECKING:
    from tulu.config.schema import Recipe

DEFAULT_RECIPE = "quickstart"
"""The recipe of `tulu rlvr` where none is named."""

app = typer.Typer(
    name="tulu",
    cls=Boundary,
    no_args_is_help=True,
    add_completion=True,
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
    log.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    log.propagate = False


def _stage_command(stage: Stage) -> Callable[..., None]:
    """The command of a stage that takes a recipe and nothing of its own."""

    def command(recipe: RecipeArgument, overrides: Overrides = None, *, how: TrainOptions) -> None:
        _run_from_recipe(stage, recipe, overrides, how)

    return command


def rlvr(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe; without one, the quickstart's.")] = DEFAULT_RECIPE,
    overrides: Overrides = None,
    verifier: Annotated[str | None, typer.Option(help="Verifier of every row, instead of each row's own.")] = None,
    stage: Annotated[str | None, typer.Option(help="Which of several RLVR stages; default: the next unfinished.")] = None,
    status: Annotated[str | None, typer.Option(metavar="RUN", help="Tell how the run of this name or folder stands.")] = None,
    *,
    how: TrainOptions,
) -> None:
    """The command of the rlvr stage, which needs no recipe."""
    if status is not None:
        from tulu.commands.status import show_status

        show_status(status, how.runs)
        return
    changes = list(overrides or [])
    if "=" in recipe:
        recipe, changes = DEFAULT_RECIPE, [recipe, *changes]
    # Where no recipe is named, the result lies beside the quickstart's and does not replace it.
    label = f"rlvr-{verifier.rpartition('/')[2].replace(':', '-')}" if recipe == DEFAULT_RECIPE and verifier else None
    if verifier is not None:
        changes.append(f"rlvr.verifier={verifier}")
    _run_from_recipe(STAGES["rlvr"], recipe, changes, how, label, stage)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL|RECIPE", help="A model, a run, or a recipe with an evaluate section.")],
    overrides: Overrides = None,
    *,
    options: EvaluateOptions,
    how: RunOptions,
) -> None:
    """The command of the evaluate stage, which takes a model as well as a recipe."""
    from tulu.config.load import is_built_in

    of_a_recipe = bool(overrides or how.dry_run or how.tiny)
    if model.endswith((".yaml", ".yml")) or (of_a_recipe and is_built_in(model)):
        if options.out is not None:
            raise RecipeError("--out belongs to a model's evaluation; a recipe's result lies under --runs")
        changes = options.overrides()
        changes += [] if options.template is None else [f"template={options.template}"]
        _run_from_recipe(STAGES["evaluate"], model, [*(overrides or ()), *changes], how)
        return
    if of_a_recipe:
        refused = f"{overrides[0]}: a model has no fields to override" if overrides else "--dry-run: a model has no plan"
        refused = "--tiny: a model is no recipe" if how.tiny else refused
        raise RecipeError(f"{refused}; use the options of tulu evaluate --help, or name a recipe")
    from tulu.commands.evaluate import evaluate_named

    evaluate_named(model, options, fresh=how.fresh, runs=how.runs)


def run(recipe: RecipeArgument, overrides: Overrides = None, *, how: TrainOptions) -> None:
    """Every stage of a recipe, in order; run it again to resume."""
    from tulu.config.learners import learners_of
    from tulu.config.recipe_stages import stages_in

    overrides = _with_tiny(recipe, overrides, how)
    learners = learners_of(stages_in(dict(_load(recipe, overrides, how.gpus))), how.gpus)
    loaded = _load(recipe, overrides, learners.count)
    if how.dry_run:
        from tulu.commands.plan import show_dry_run
        from tulu.config.provenance import origins

        show_dry_run(loaded, origins(recipe, loaded, overrides or ()), processes=learners.count)
        return
    from tulu.config.ahead import look_ahead
    from tulu.config.job import folders_of_run
    from tulu.config.merging import require_models

    look_ahead(loaded, list(STAGES))
    require_models(loaded.merge, loaded.name, how.runs, own=False)
    with only_user(*folders_of_run(loaded, how.runs)):
        if done_by_ranks(learners):
            return
        from tulu.stages.pipeline import run_recipe

        run_recipe(loaded, how.runs, how.fresh)


def rewardbench(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A reward model, a DPO model or a judge.")] = None,
    data: Annotated[str, typer.Option(help="v1, v2, prior, v1+prior, v1=PATH, v2=PATH, or a file of pairs.")] = "v1",
    scores: Annotated[Path | None, typer.Option(help="Only aggregate these scores, made elsewhere.")] = None,
    *,
    options: RewardBenchOptions,
) -> None:
    """Score a model on RewardBench 1, RewardBench 2 or your own pairs."""
    from tulu.reward_models.rewardbench import run

    run(model, data, scores, options)


def verify(
    name: Annotated[str | None, typer.Argument(metavar="VERIFIER", help="Name of a verifier, or path/to/mine.py:score.")] = None,
    source: Annotated[str | None, typer.Option("--in", help="Rows {completion, ground_truth, ...} as JSONL; - is stdin.")] = None,
    target: Annotated[str | None, typer.Option("--out", help="Where the scored rows go, in order; - is stdout.")] = None,
    mode: Annotated[Mode, typer.Option(help="strict grades by the meaning, the others as open-instruct does or did.")] = "strict",
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = 2,
    unsafe_local: Annotated[bool, typer.Option("--unsafe-local", help="Run programs here without a sandbox.")] = False,
    reward_model: Annotated[str | None, typer.Option(help="Folder or hub name, for the verifier reward_model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the reward model brings along.")
    ] = False,
    attack: Annotated[
        str | None, typer.Option(help="Verifier to attack in place of scoring rows; all attacks every one.")
    ] = None,
    golds: Annotated[str | None, typer.Option(help="Rows {ground_truth, prompt?} to attack; default: built-in ones.")] = None,
    count: Annotated[int, typer.Option(min=1, help="About so many verdicts for a verifier, and some for every gold.")] = 2000,
) -> None:
    """Score completions with a verifier; with --attack, measure what answers earn that know nothing of their row."""
    if attack is not None:
        if name or source or target or reward_model:
            raise RecipeError("--attack NAME takes no verifier, --in, --out or --reward-model beside it; leave them out")
        from tulu.commands.attack import attack_verifiers

        attack_verifiers(attack, golds, count, mode, workers, unsafe_local=unsafe_local)
        return
    if golds is not None:
        raise RecipeError("--golds belongs to --attack NAME; add it")
    if name is None or source is None or target is None:
        absent = "argument 'VERIFIER'" if name is None else f"option '{'--in' if source is None else '--out'}'"
        raise RecipeError(f"Missing {absent}: tulu verify takes VERIFIER --in FILE --out FILE, or --attack VERIFIER")
    from tulu.commands.verify import verify_file

    how = {"unsafe_local": unsafe_local, "trust_remote_code": trust_remote_code}
    verify_file(name, source, target, mode, workers, reward_model=reward_model, **how)


def sample(model: Annotated[str, typer.Argument(metavar="MODEL", help="A model or a run.")], *, options: SampleOptions) -> None:
    """Rejection sampling: the best of N answers to each prompt, as rows for sft, dpo and rm."""
    from tulu.commands.sample import sample_named

    sample_named(model, options)


def data(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    decontaminate: Annotated[bool, typer.Option("--decontaminate", help="Also search for held-out questions.")] = False,
    against: Annotated[list[str] | None, typer.Option(help="Held-out questions; default: the recipe's evaluation.")] = None,
    clean: Annotated[Path | None, typer.Option(help="Folder for copies of the sources without what gives them away.")] = None,
) -> None:
    """What the mixes of a recipe really hold: counts, lengths, a masked sample in colour."""
    loaded = _load(recipe, overrides)
    if not decontaminate and (against or clean):
        raise RecipeError("--against and --clean belong to --decontaminate; add it")
    from tulu.commands.data import report

    report(loaded, decontaminate, against or (), clean)


def plan(recipe: RecipeArgument, overrides: Overrides = None, *, options: PlanOptions) -> None:
    """Batch, memory, time and cost of a recipe, before a GPU is lit."""
    from tulu.commands.plan import on_a_gpu, show_plan
    from tulu.config.learners import learners_of
    from tulu.config.recipe_stages import stages_in

    assumed = on_a_gpu(options)
    learners = learners_of(stages_in(dict(_load(recipe, overrides, options.processes))), options.processes)
    show_plan(_load(recipe, overrides, learners.count), replace(assumed, processes=learners.count), assumed=assumed != options)


def _load(name: str, overrides: list[str] | None, processes: int | None = None, stage: str | None = None) -> "Recipe":
    from tulu.config.load import load_recipe

    return load_recipe(name, overrides or (), processes, stage)


def _with_tiny(name: str, overrides: list[str] | None, how: RunOptions, stage: str | None = None) -> list[str]:
    """The overrides of the command line; with `--tiny` behind those that make the recipe tiny."""
    if not how.tiny:
        return list(overrides or ())
    from tulu.commands.tiny import tiny_overrides

    return tiny_overrides(name, overrides or (), how.runs, stage)


def _run_from_recipe(
    row: Stage, name: str, overrides: list[str] | None, how: RunOptions, label: str | None = None, which: str | None = None
) -> None:
    """Resolve a recipe and run one of its stages, after the earlier stages whose model it needs and does not find.

    Of several stages of a row it is the next unfinished one, or the one named `which`; a label is another name of its folder.
    """
    from tulu.config.ahead import look_ahead
    from tulu.config.job import make_job, missing, next_stage, section_of, stage_of
    from tulu.config.learners import learners_of
    from tulu.config.merging import require_models

    gpus = how.gpus if isinstance(how, TrainOptions) else None
    overrides = _with_tiny(name, overrides, how, row.name)
    recipe = _load(name, overrides, gpus, row.name)
    chosen = next_stage(recipe, row.name, how.runs, which)
    stage = chosen.key
    section_of(recipe, stage)
    earlier = missing(recipe, stage, how.runs)
    learners = learners_of([*(stage_of(recipe, before) for before in earlier), chosen], gpus)
    for each in (*earlier, stage):
        _load(name, overrides, learners.count, each)
    if how.dry_run:
        from tulu.commands.plan import show_dry_run
        from tulu.config.provenance import origins

        start = f"the model of {earlier[-1]}, which runs first" if earlier else make_job(recipe, stage, how.runs).start
        told = origins(name, recipe, overrides or ())
        show_dry_run(recipe, told, only=stage, start=start, processes=learners.count)
        return
    look_ahead(recipe, [*earlier, stage])
    if not earlier:
        job = make_job(recipe, stage, how.runs)
        require_models(recipe.merge if job.row.merges else None, recipe.name, how.runs, own=True)
    folders = [*(stage_of(recipe, before).name for before in earlier), label or chosen.name]
    with only_user(*(how.runs / recipe.name / folder for folder in folders)):
        if done_by_ranks(learners):
            return
        for before in earlier:
            _announce(f"{stage} has no model to start from yet: running {before} first")
            _run_stage(recipe, before, how.runs)
        if chosen.place is not None:
            _announce(f"{stage}: the stage that `tulu {row.name}` runs now; --stage NAME runs another")
        _run_stage(recipe, stage, how.runs, how.fresh, label)


def _run_stage(recipe: "Recipe", stage: str, runs: Path, fresh: bool = False, label: str | None = None) -> None:
    from tulu.config.job import make_job

    job = make_job(recipe, stage, runs, fresh)
    if label is not None:
        job = replace(job, folder=job.folder.with_name(label))
    if job.start is not None and not job.row.merges:
        _announce(f"{stage}: starts from {job.start}")
    from tulu.train.attempts import attempting

    with attempting(job):
        result = resolve(job.row.runner)(job)
    if job.row.makes_folder:
        _announce(f"{stage}: finished, {result}")


def _announce(line: str) -> None:
    if is_main_process():
        typer.echo(line, err=True)


_OF_THEIR_OWN: dict[str, Callable[..., None]] = {"rlvr": rlvr, "evaluate": evaluate}
"""The commands of the stages that take more than a recipe."""
_WITHOUT_STAGE: tuple[Callable[..., None], ...] = (run, rewardbench, verify, sample, data, plan)

for _stage in STAGES.values():
    _command = _OF_THEIR_OWN.get(_stage.name) or _stage_command(_stage)
    app.command(_stage.name, help=_stage.help, hidden=_stage.hidden)(with_options(_command))
for _command in (*_WITHOUT_STAGE, *DAILY):
    app.command(_command.__name__)(with_options(_command))
app.add_typer(recipe_commands, name="recipes")


def main() -> None:
    """The console script."""
    with leaving_at_once():
        app()
