"""`tulu report`: what a run did, as one HTML file, or as a page that follows it."""

import errno
from pathlib import Path
from typing import Annotated

import typer

from tulu.errors import RecipeError
from tulu.files import make_room_for


def report(
    run: Annotated[list[str], typer.Argument(metavar="RUN…", help="Runs by name or folder, or folders of single stages.")],
    out: Annotated[Path | None, typer.Option(help="The file; default: report.html in the (first) run's folder.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Serve it to this machine and follow the run, with all rollouts.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --live; default: any that is free.")] = 0,
    runs: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
) -> None:
    """What runs did, as one HTML file: stages, curves, rollouts, rows, RewardBench, energy."""
    from tulu.report.runs import find_run

    if live and out is not None:
        raise RecipeError("--live serves a page and --out writes a file; leave one of them out")
    if port and not live:
        raise RecipeError("--port belongs to --live; add it")
    folders = list(dict.fromkeys(find_run(name, runs) for name in run))
    if live:
        _serve(folders, port)
        return
    from tulu.report.writing import NAME, write_report

    target = out or folders[0] / NAME
    if target.is_dir():
        raise RecipeError(f"--out {target}: is a folder; name a file, such as {target / NAME}")
    make_room_for(target, "--out")
    written = write_report(folders, target)
    typer.echo(f"{written}: {written.stat().st_size / 1e6:.2f} MB, opens in any browser")


def _serve(folders: list[Path], port: int) -> None:
    """Serve until Ctrl-C."""
    from tulu.report.live import LOOPBACK, LiveServer

    try:
        server = LiveServer(folders, port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        raise RecipeError(f"--port {port}: {error.strerror}; name another, or leave it out for any that is free") from error
    with server:
        tunnel = f"ssh -L {server.server_port}:{LOOPBACK}:{server.server_port} HOST"
        typer.echo(f"{server.url}  (for this machine alone; from another one: {tunnel})")
        typer.echo("Ctrl-C ends it; the run goes on.")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            typer.echo("ended", err=True)
