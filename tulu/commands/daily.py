"""Commands of every day that train nothing: each a function that the command line reads, with its work in a file of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tulu.commands.report import report
from tulu.evaluation.options import ChatOptions


def energy(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Folders of runs, runs, or stages of runs.")],
    final: Annotated[
        list[str] | None, typer.Option(help="Name of a run, or of a line, of the release; others are development.")
    ] = None,
    facility: Annotated[str | None, typer.Option(help="Data centre: olmo3 (the default), jupiter or augusta.")] = None,
    overhead: Annotated[
        float | None,
        typer.Option("--overhead", "--pue", help="kWh of the data centre for each one of its GPUs, such as its PUE."),
    ] = None,
    carbon: Annotated[float | None, typer.Option(help="kg CO2e a kWh of the grid.")] = None,
    water_on: Annotated[float | None, typer.Option(help="Litres a kWh evaporated on site.")] = None,
    water_off: Annotated[float | None, typer.Option(help="Litres a kWh consumed where power is generated.")] = None,
    embodied: Annotated[
        float | None, typer.Option(metavar="KG", help="kg CO2e of making a GPU, for each hour of it (0.0132, of an H100).")
    ] = None,
    embodied_water: Annotated[
        float | None, typer.Option(metavar="LITRES", help="Litres of making a GPU, for each hour of it (0.0029, of an H100).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write everything as JSON into this file.")] = None,
) -> None:
    """What runs and evaluations took, finished or not: energy by phase, carbon and water."""
    from tulu.commands.energy import facility_of, making_of, show_ledger

    figures = {"overhead": overhead, "carbon": carbon, "water_on": water_on, "water_off": water_off}
    show_ledger(runs, final or (), facility_of(facility, **figures), making_of(embodied, embodied_water), out)


def env(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, GPUs, vLLM and sandbox of this machine, for a bug report."""
    from tulu.commands.environment import show_environment

    show_environment(as_json)


def verifiers(name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of them, with an example.")] = None) -> None:
    """Which verifiers there are, with the form of their ground truths and examples."""
    from tulu.commands.verifiers import show_verifiers

    show_verifiers(name)


def chat(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder, hub name, run, or folder of adapters.")],
    runs: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
    *,
    options: ChatOptions,
) -> None:
    """Talk to a model; its answers are written as they come."""
    from tulu.config.named_models import naming
    from tulu.evaluation.refusals import check_chat

    with naming(model, runs) as named:
        check_chat(named.model, options)
        from tulu.evaluation.chat import converse, load_chat, typed_lines

        ready = load_chat(named.model, options, named.revision)
    converse(ready, typed_lines(), typer.echo)


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, RUN/STAGE, or the folder of a stage.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the model goes.")],
    runs: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Only the adapters of a run with lora, as peft saves them.")
    ] = False,
) -> None:
    """Copy a trained model with its card: merged weights, or its adapters apart."""
    from tulu.commands.export import export as copy

    copy(run, folder, runs, adapters)


def push(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, RUN/STAGE, or the folder of a stage.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    runs: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
    private: Annotated[bool, typer.Option("--private", help="Only for you.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the model card, and send nothing.")] = False,
) -> None:
    """Send a trained model to the hub, with a card of its recipe, data, figures and energy."""
    from tulu.commands.push import push as send

    send(run, repo, runs, private, dry_run)


DAILY: tuple[Callable[..., None], ...] = (chat, energy, env, export, push, report, verifiers)
"""The commands, by the names of their functions."""
