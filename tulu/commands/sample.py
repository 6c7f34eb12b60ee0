"""`tulu sample`: rejection sampling, the best of several answers to each prompt."""

from typing import Annotated

import typer

from tulu.evaluation.options import SampleOptions


def sample(model: Annotated[str, typer.Argument(help="What answers: folder or hub name.")], *, options: SampleOptions) -> None:
    """Rejection sampling: the best of N answers to each prompt, as rows for sft, dpo and rm."""
    from tulu.evaluation.sample import sample as run

    run(model, options)
