"""What `tulu plan` prints of RLVR's loop: how GPUs may be divided between learner and engines, and what that comes to."""

from rich.console import Console
from rich.table import Table

from tulu.config.decoding import engine_of
from tulu.config.facts import Facts
from tulu.config.splits import SLOWED, Divider, Split, Splits, divider_of

SHOWN = 3
"""Divisions that are shown of those that were tried, the fastest ones."""
COLUMNS = (
    *("learn-\ners", "engines", "GPUs\neach", "stale-\nness", "s a\nstep", "trained\n/s"),
    *("learner\nwaits", "engines\nidle", "graders\nidle", "age of\na token"),
)
"""What each column says, in words that fit a line of 80 letters together."""


def show_splits(key: str, facts: Facts) -> None:
    """Print the divisions of a stage's GPUs; nothing where there is nothing to divide, or nothing is known of the GPUs."""
    divider = divider_of(facts)
    if divider is None or divider.gpus < 2:
        return
    splits = divider.splits()
    console = Console()
    console.print(_table(splits, divider.gpus, divider.section.samples))
    lines = [*_legend(splits), *_advice(key, splits), *_bound(key, divider, splits)]
    if engine_of(divider.section) != "vllm":
        lines.append(f"{key}.engine={divider.section.engine} samples where it learns; engines with GPUs of their own are vLLM")
    for line in lines:
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _table(splits: Splits, gpus: int, samples: int) -> Table:
    title = f"how to divide {gpus} GPUs (simulated)"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, collapse_padding=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    table.add_column("")
    best = splits.best
    for split in _rows(splits):
        found = split.outcome
        apart = split.engines > 0
        table.add_row(
            f"{split.learners}",
            f"{split.engines}" if apart else "–",
            f"{split.tensor_parallel}" if apart else "–",
            f"{split.max_staleness}",
            f"{found.step_seconds:,.1f}",
            f"{samples * found.groups / found.step_seconds:,.1f}",
            f"{found.learner_idle:.0%}",
            f"{found.engines_idle:.0%}",
            f"{found.graders_idle:.0%}",
            f"{found.staleness:.2f}",
            _mark(split, splits),
            style="bold" if best is not None and split.settings == best.settings else None,
        )
    return table


def _rows(splits: Splits) -> list[Split]:
    """What is shown, each once: turns, the recipe's own, the fastest, and the fastest that runs ahead."""
    rows = [splits.together, splits.stated, *splits.apart[:SHOWN], *([splits.ahead] if splits.ahead else [])]
    return list({split.settings: split for split in rows}.values())


def _mark(split: Split, splits: Splits) -> str:
    """What a row is marked as; the lines below the table say the rest."""
    if splits.best is not None and split.settings == splits.best.settings:
        return "◀ best"
    if not split.fits:
        return "no room"
    return "recipe" if split.settings == splits.stated.settings else ""


def _legend(splits: Splits) -> list[str]:
    """What the rows are that no mark tells."""
    lines = ["–: learners and engines take turns on the same GPUs"]
    if splits.best is not None and splits.best.settings == splits.stated.settings:
        lines.append("the best is the recipe's own")
    elif not splits.stated.fits:
        lines.append("the recipe's own does not fit")
    if splits.ahead is not None:
        lines.append("staleness 1: the fastest that runs ahead of the learner")
    return lines


def _advice(key: str, splits: Splits) -> list[str]:
    """How the best is written on the command line, and what running ahead would gain."""
    best, ahead = splits.best, splits.ahead
    if best is None:
        return ["no division of these GPUs holds the model; the line of memory says what would"]
    lines = []
    if best.settings != splits.stated.settings:
        lines.append(f"the best: {_written(key, best)}")
    if ahead is not None:
        times = best.outcome.step_seconds / ahead.outcome.step_seconds
        if times > 1:
            lines.append(
                f"{times:.2f} times as fast, on tokens that are {ahead.outcome.staleness:.1f} steps old: {_written(key, ahead)}"
            )
    return lines


def _bound(key: str, divider: Divider, splits: Splits) -> list[str]:
    """What graders cost where more of them would make the recipe's own division faster."""
    grading, stated = divider.grading, splits.stated
    times = stated.outcome.step_seconds / divider.without_a_queue(stated).step_seconds
    if times <= SLOWED:
        return []
    told = f"graders are the bound: answers that wait for one make the recipe's division take {times:.2f} times as long"
    if grading.asks_judge:
        return [f"{told}; {grading.graders} requests at once are the most, so that only a judge that answers sooner helps"]
    return [f"{told}; enough are {key}.resources.graders={divider.enough_graders(stated)}"]


def _written(key: str, split: Split) -> str:
    wide = f" {key}.resources.tensor_parallel={split.tensor_parallel}" if split.engines else ""
    return f"--gpus {split.learners} {key}.resources.engines={split.engines}{wide} {key}.max_staleness={split.max_staleness}"
