"""What `tulu verify --attack` does: it attacks verifiers, and prints what the best constant earns beside chance."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tulu.commands.files import read_rows
from tulu.data.faults import odd_rows
from tulu.data.messages import read_messages, read_prompt
from tulu.errors import DataError, RecipeError, TuluError
from tulu.grading.grader import Grader
from tulu.verifiers.attacks.golds import builtin_golds
from tulu.verifiers.attacks.universal import Outcome, attack, worst
from tulu.verifiers.code.sandbox import UNSAFE
from tulu.verifiers.contract import Mode, shorten
from tulu.verifiers.registry import VERIFIERS, check_gold, check_name

_COLUMNS = 140
_SANDBOXED = 40
"""A verdict on a program costs as much as this many others, and an attack on such a verifier has as many fewer."""


def attack_verifiers(
    name: str, golds: str | None, count: int = 2000, mode: Mode = "strict", workers: int = 2, unsafe_local: bool = False
) -> None:
    """Attack one verifier, or all that have built-in golds, and print a table and the holes.

    `golds` is a file of rows with a ground truth, and a prompt or messages where echoes of them are to be tried. Raises
    TuluError where something earns more than chance, where nothing at all earns something, where golds of different value
    pass for each other, or where an answer is masked.
    """
    if unsafe_local:
        # The grading processes inherit the variable.
        os.environ[UNSAFE] = "1"
    if name == "all" and golds is not None:
        raise RecipeError("--attack all: a file of --golds belongs to one verifier; name it")
    if name != "all":
        check_name(name)
    outcomes, skipped = list[Outcome](), list[str]()
    with Grader(workers, mode=mode) as grader:
        for one in sorted(VERIFIERS) if name == "all" else [name]:
            truths, prompts, refused = _golds(one, golds)
            if not truths and name == "all":
                skipped.append(one)
                continue
            if not truths:
                raise RecipeError(f"--attack {one}: there are no built-in golds for it; give some with --golds FILE")
            if name == "all" and not _runs(one):
                skipped.append(one)
                continue
            outcome = attack(
                one, truths, grader.grade, max(1, count // _SANDBOXED) if _starts_sandbox(one) else count, 1, prompts
            )
            outcome.unproven += refused
            outcomes.append(outcome)
    _report(outcomes, skipped)


def _starts_sandbox(name: str) -> bool:
    return name.startswith("code")


def _runs(name: str) -> bool:
    try:
        check_name(name)
    except RecipeError:
        return False
    return True


def _golds(name: str, source: str | None) -> tuple[list[Any], list[str], list[tuple[Any, str]]]:
    """The golds of an attack, their prompts, and those that the verifier refuses with its reason."""
    if source is None:
        truths = builtin_golds(name)
        return truths, [], []
    rows = read_rows(source, partial(_gold, name), "attacked", "--golds")
    refused = [(truth, fault) for truth, _, fault in rows if fault]
    if len(refused) == len(rows):
        cure = "Give golds that the verifier takes (tulu verifiers NAME shows their form), or attack another one."
        raise odd_rows([fault for _, fault in refused], len(rows), "used", cure)
    usable = [(truth, prompt) for truth, prompt, fault in rows if not fault]
    return [truth for truth, _ in usable], [prompt for _, prompt in usable], refused


def _gold(name: str, row: Any, where: str) -> tuple[Any, str, str]:
    """The gold of a row, its prompt, and why the verifier refuses the gold. Raises DataError where the row has none."""
    if not isinstance(row, dict) or "ground_truth" not in row:
        raise DataError("lacks ground_truth; a row has ground_truth and perhaps prompt")
    prompt = _prompt(row, where)
    try:
        check_gold(name, row["ground_truth"])
    except DataError as fault:
        return row["ground_truth"], prompt, f"{where}: {fault}"
    return row["ground_truth"], prompt, ""


def _prompt(row: dict[str, Any], where: str) -> str:
    """The question of a row, or an empty text. Raises DataError where its messages cannot be read."""
    if row.get("messages"):
        turns = read_messages(row["messages"], f"{where}, messages")
    else:
        turns = read_prompt(row["prompt"], f"{where}, prompt") if row.get("prompt") else []
    users = [turn["content"] for turn in turns if turn["role"] == "user"]
    return users[-1] if users else ""


def _report(outcomes: Sequence[Outcome], skipped: Sequence[str]) -> None:
    console = Console(width=_COLUMNS, markup=False, emoji=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("verifier")
    for column in ("golds", "proven", "verdicts", "best", "chance", "paid", "nothing > 0", "crossed", "masked"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("the best constant")
    for outcome in outcomes:
        given = outcome.golds + len(outcome.unproven)
        cells = [given, outcome.golds, outcome.verdicts, f"{outcome.best_mean:.4f}", f"{outcome.chance:.4f}", len(outcome.paid)]
        crossed = f"{len(outcome.crossed)}/{outcome.pairs}"
        found = [len({answer for answer, _, _ in outcome.nothing_paid}), crossed, len(outcome.masked)]
        table.add_row(outcome.name, *map(str, [*cells, *found]), ascii(shorten(outcome.best.text, 30)))
    console.print(table)
    for outcome in outcomes:
        for line in worst(outcome):
            console.print(Text(f"{outcome.name}: {line}", style="red" if not outcome.holds else "yellow"), soft_wrap=True)
    if skipped:
        console.print(f"not attacked here (they need a service, a package or a sandbox): {', '.join(skipped)}")
    broken = [outcome.name for outcome in outcomes if not outcome.holds]
    if broken:
        raise TuluError(f"an answer that knows nothing of its row is paid by {', '.join(broken)}; see the lines above")
