"""`tulu verify`: score the completions of a file with a verifier."""

from typing import Annotated, Literal

import typer


def verify(
    name: Annotated[str, typer.Argument(metavar="VERIFIER", help="Name of a verifier, or path/to/mine.py:score.")],
    source: Annotated[str, typer.Option("--in", help="Rows {completion, ground_truth, ...} as JSONL; - is stdin.")],
    target: Annotated[str, typer.Option("--out", help="Where the scored rows go, in order; - is stdout.")],
    mode: Annotated[Literal["strict", "tulu3"], typer.Option(help="tulu3 agrees with open-instruct.")] = "strict",
    workers: Annotated[int, typer.Option(min=1, help="Processes that grade.")] = 2,
    unsafe_local: Annotated[bool, typer.Option("--unsafe-local", help="Run programs here without a sandbox.")] = False,
    reward_model: Annotated[str | None, typer.Option(help="Folder or hub name, for the verifier reward_model.")] = None,
) -> None:
    """Score completions with a verifier."""
    from tulu.commands.verify_rows import verify_file

    verify_file(name, source, target, mode, workers, unsafe_local=unsafe_local, reward_model=reward_model)
