"""What `tulu plan` and `--dry-run` print: a block of facts for each stage, and the resolved recipe in colour."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from tulu.commands.splits import show_splits
from tulu.commands.terminal import shows_everything
from tulu.config.cards import CARDS, POWER_SHARE, PUE
from tulu.config.decoding import APART_SHARE, BANDWIDTH, ENGINE_SHARE, LEAST, engine_of
from tulu.config.estimate import Bill, Work, bill_of, work_of
from tulu.config.facts import EXPERTS_MFU, GRADING, MFU, SYNC, Facts, facts_of
from tulu.config.fitting import MOST_PROCESSES, Rows, cure, rows_of, samples_beside
from tulu.config.job import stages_of
from tulu.config.known import BYTES_A_TOKEN
from tulu.config.lengths import SPREAD
from tulu.config.load import dump
from tulu.config.operations import PROMPT_SHARE
from tulu.config.options import Gpu, PlanOptions
from tulu.config.plan import GIB, batch_equation
from tulu.config.provenance import Origin
from tulu.config.recipe_stages import RecipeStage
from tulu.config.schema import Recipe, Rlvr, TrainStage
from tulu.config.sizes import Size
from tulu.config.unknown import open_fields
from tulu.config.yaml_text import annotate
from tulu.errors import RecipeError

ASSUMED: Gpu = "h100"
"""The GPU of an estimate where it is said how many there are, and not which."""


def on_a_gpu(options: PlanOptions) -> PlanOptions:
    """The options with a GPU, an assumed one where only a number is given. Raises RecipeError for a price of no GPU."""
    if options.gpu is not None:
        return options
    if options.price is not None:
        raise RecipeError(f"--price needs --gpu {'|'.join(CARDS)}")
    return options if options.processes is None else replace(options, gpu=ASSUMED)


def show_dry_run(
    recipe: Recipe,
    origins: Mapping[str, Origin],
    only: str | None = None,
    start: str | None = None,
    processes: int | None = None,
) -> None:
    """Print the resolved recipe with the origin of every value, and its plan; with `only`, those of one stage, which starts from
    `start`."""
    text = annotate(
        dump(recipe, only, ascii_only=not shows_everything(sys.stdout)), {key: str(origin) for key, origin in origins.items()}
    )
    # Lines are never broken, so that what is written to a file is a recipe.
    Console().print(Syntax("", "yaml", background_color="default").highlight(text), soft_wrap=True, end="")
    show_plan(recipe, PlanOptions(processes=processes), only, start)


def show_plan(
    recipe: Recipe, options: PlanOptions, only: str | None = None, start: str | None = None, assumed: bool = False
) -> None:
    """Print the plan of every stage; with `only`, of that one, which starts from `start`. A GPU that is `assumed` is told."""
    bills: dict[str, Bill | None] = {}
    stages = stages_of(recipe, only)
    for stage in stages:
        facts = facts_of(recipe, stage.row, stage.section, options)
        work = work_of(facts)
        bills[stage.key] = bill_of(facts, work, options.price)
        Console().print(_table(stage, facts, work, bills[stage.key], options, start))
        show_splits(stage.key, facts)
    if options.gpu is not None:
        _say(_total(bills))
        if assumed:
            _say(f"assumed: the GPUs are {options.gpu} (--gpu {'|'.join(CARDS)})")
        for assumption in _assumptions([stage.section for stage in stages], options):
            _say(f"assumed: {assumption}")
        _say(
            "left out: loading, tokenising, checkpoints, evaluation, what GPUs exchange, and, but where it says that it was "
            "simulated, grading and sending weights to engines"
        )
    if waiting := open_fields(recipe, [stage.key for stage in stages]):
        listed = "; ".join(f"{field} ({why})" for field, why in waiting.items())
        _say(f"unknown, to be given before it trains: {listed}")


def _say(line: str) -> None:
    Console().print(line, soft_wrap=True, markup=False, highlight=False)


def _table(
    stage: RecipeStage[TrainStage], facts: Facts, work: Work | None, bill: Bill | None, options: PlanOptions, start: str | None
) -> Table:
    """The facts of one stage, one in each line."""
    section = facts.section
    lines = {
        "start": start or section.start or "decided when it runs: the earlier stage's model, else released, else model",
        "batch": f"{batch_equation(section, facts.processes)} ({stage.row.unit})",
        "rows": _rows(facts),
        "lengths": _lengths(facts),
        "steps": f"{facts.steps:,}"
        if facts.steps is not None
        else f"unknown: {section.epochs:g} epochs of an unknown number of rows",
        "parameters": _parameters(facts),
        **_memory(facts),
        **({} if work is None else _work(work)),
        **_grading(facts),
        **_price(facts, work, bill, options),
    }
    if stage.row.makes_model:
        lines.pop("start")
    if facts.unknown:
        lines["unknown"] = "; ".join(facts.unknown)
    grid = Table(title=_title(stage), title_justify="left", title_style="bold cyan", show_header=False, box=None, pad_edge=False)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in lines.items():
        grid.add_row(key, value)
    return grid


def _title(stage: RecipeStage[TrainStage]) -> str:
    """The command of a stage, and its name where a list holds several."""
    return f"tulu {stage.row.name}" + ("" if stage.place is None else f": {stage.name}")


def _rows(facts: Facts) -> str:
    if facts.rows is None:
        needed = "give --rows N" if facts.steps is None else "the steps do not depend on them"
        return f"unknown: {', '.join(facts.mix.unknown)}; {needed}"
    left_out = "" if facts.lengths.kept > 0.9995 else f", {1 - facts.lengths.kept:.1%} longer ones left out"
    sources = f" ({'; '.join(facts.mix.sources)})" if facts.mix.sources else ""
    return f"{'about ' if facts.mix.about else ''}{facts.rows:,}{left_out}{sources}"


def _lengths(facts: Facts) -> str:
    lengths = facts.lengths
    cut = "longer ones left out" if lengths.leaves_out else "cut"
    answers = ""
    if isinstance(facts.section, Rlvr):
        prompts = "of the data" if facts.mix.tokens is not None else "assumed"
        answers = f"prompts {facts.prompt:,.0f} tokens on average ({prompts}); answers "
    return (
        f"{answers}log-normal, mean {lengths.mean:,.0f} tokens ({facts.lengths_from}), nine of ten up to "
        f"{lengths.nine_tenths:,.0f}; {cut} at {lengths.longest:,}: mean {lengths.tokens:,.0f}"
    )


def _parameters(facts: Facts) -> str:
    size = facts.size
    if size is None:
        return "unknown offline (no config.json at hand); give --parameters 7.3e9"
    active = f", {size.active:,.0f} active" if size.has_experts else ""
    others: dict[str, tuple[object, Size | None]] = {}
    if isinstance(facts.section, Rlvr):
        others = {"value model": (facts.section.value, facts.value), "teacher": (facts.section.teacher, facts.teacher)}
    beside = "".join(f"; {name} {_counted(known)}" for name, (asked, known) in others.items() if asked is not None)
    return f"{size.parameters:,.0f}{active}{beside} ({facts.size_from})"


def _counted(size: Size | None) -> str:
    """The parameters of a model beside the policy."""
    return "taken to be as large, because its config.json is not at hand" if size is None else f"{size.parameters:,.0f}"


def _memory(facts: Facts) -> dict[str, str]:
    if facts.size is None:
        return {"memory": "unknown, because the parameters are"}
    rows = rows_of(facts)
    parts = ", ".join(f"{part} {amount / GIB:.2f}" for part, amount in rows.amounts.items())
    rest = "" if "activations" in rows.amounts else "; activations unknown"
    text = f"about {sum(rows.amounts.values()) / GIB:.2f} GiB a process ({parts}{rest})"
    return {"row": _row(facts, rows), "memory": text + _verdict(facts, rows)}


def _row(facts: Facts, rows: Rows) -> str:
    section = facts.section
    if section.row_tokens != "auto":
        return f"{rows.tokens:,} tokens at most (row_tokens), and micro_batch {section.micro_batch}"
    if rows.room is not None and not section.sharding.startswith("zero"):
        sequences = rows.tokens / (facts.lengths.tokens + facts.prompt)
        return f"{rows.tokens:,} tokens, about {sequences:,.0f} sequences (row_tokens: auto, which measures it when it runs)"
    return f"{rows.tokens:,} tokens at most (row_tokens: auto measures nothing here), and micro_batch {section.micro_batch}"


def _verdict(facts: Facts, rows: Rows) -> str:
    """Whether the stage fits the GPU, and with what it would."""
    if rows.room is None:
        return ""
    room = f"{rows.room / GIB:.0f} GiB of a GPU" + (" beside vLLM" if samples_beside(facts.section) else "")
    if rows.fits:
        return f"; fits {room}"
    helps = cure(facts)
    return f"; does NOT fit {room}: " + (f"{helps} does" if helps else f"not even over {MOST_PROCESSES:,} GPUs")


def _work(work: Work) -> dict[str, str]:
    parts = ", ".join(f"{name} {amount:.2e}" for name, amount in work.operations.items())
    return {"tokens": f"{work.tokens:,.0f}", "operations": f"{sum(work.operations.values()):.2e} FLOPs ({parts})"}


def _grading(facts: Facts) -> dict[str, str]:
    """How RLVR's answers get their verdicts, and what those of a step take at least."""
    grading, section = facts.grading, facts.section
    if grading is None or not isinstance(section, Rlvr):
        return {}
    seconds = grading.least_seconds(section.batch)
    return {"graders": f"{grading.told}: {section.batch:,} answers of a step take {seconds:,.2f} s at least"}


def _price(facts: Facts, work: Work | None, bill: Bill | None, options: PlanOptions) -> dict[str, str]:
    """Time, cost and energy."""
    if options.gpu is None:
        return {"time": f"give --gpu {'|'.join(CARDS)} for an estimate"}
    if bill is None:
        return {"time": "unknown: parameters and steps are needed"}
    gpus = facts.processes if work is None or work.split is None else work.split.gpus
    on = f"on {gpus} {options.gpu} at {facts.mfu:.0%} of peak"
    lines = {"time": f"estimate, {bill.hours:,.2f} h {on}, {bill.gpu_hours:,.1f} GPU hours"}
    if work is not None and work.sampled is not None:
        sampled = work.sampled
        spread = "" if sampled.gpus == 1 else f", an engine over {sampled.gpus} GPUs"
        lines["time"] += (
            f"; of it sampling {bill.sampling_hours:,.2f} h ({sampled.seconds:,.1f} s a step, up to {sampled.at_once:,.0f} "
            f"answers at once in an engine{spread}), learner {bill.learner_hours:,.2f} h"
        )
    if work is not None and work.split is not None:
        a_step = work.split.outcome.step_seconds
        lines["time"] += (
            f" (simulated, {a_step:,.1f} s a step); of it the learner waits {bill.sampling_hours:,.2f} h for rollouts"
        )
    if bill.cost is not None:
        lines["cost"] = f"{bill.cost:,.2f}"
    lines["energy"] = f"{bill.kwh:,.1f} kWh"
    return lines


def _total(bills: Mapping[str, Bill | None]) -> str:
    """One line for all stages together."""
    known = [bill for bill in bills.values() if bill is not None]
    missing = [name for name, bill in bills.items() if bill is None]
    cost = sum(bill.cost for bill in known if bill.cost is not None)
    text = f"in all: {sum(bill.hours for bill in known):,.2f} h, {sum(bill.gpu_hours for bill in known):,.1f} GPU hours"
    text += f", cost {cost:,.2f}" if any(bill.cost is not None for bill in known) else ""
    text += f", {sum(bill.kwh for bill in known):,.1f} kWh"
    return text + (f"; without {', '.join(missing)}, of which too little is known" if missing else "")


def _assumptions(sections: Sequence[TrainStage], options: PlanOptions) -> list[str]:
    """What the estimates stand on, one sentence each."""
    assert options.gpu is not None
    card = CARDS[options.gpu]
    mfu = (
        f"MFU {options.mfu:.0%} as given"
        if options.mfu
        else f"MFU {MFU:.0%}, {EXPERTS_MFU:.0%} for mixtures of experts (docs/performance.md: one H200 reached 45 to 57 %; "
        "several GPUs, which also exchange, and experts were not measured)"
    )
    told = [
        f"{mfu}, of {card.peak / 1e12:.0f} TFLOP/s",
        f"lengths log-normal with σ {SPREAD:g}, {BYTES_A_TOKEN:g} bytes of text a token, {PROMPT_SHARE:.0%} of a conversation "
        "prompt",
        f"energy: {card.watts:.0f} W × {POWER_SHARE:.0%} × PUE {PUE:g} (arXiv 2503.05804), GPUs alone",
    ]
    rollouts = [section for section in sections if isinstance(section, Rlvr)]
    if rollouts:
        least = ", ".join(sorted({f"{LEAST[engine_of(section)] * 1000:g} ms with {engine_of(section)}" for section in rollouts}))
        told.append(
            f"sampling: every GPU samples, then learns, but where engines have their own; decoding reaches {BANDWIDTH:.0%} of "
            f"{card.bandwidth / 1e12:g} TB/s, and a token takes at least {least}; an engine has {ENGINE_SHARE:.0%} of a GPU's "
            f"memory, {APART_SHARE:.0%} of its own; {_replaced(options)}"
        )
        told.append(
            "simulated: prompts are drawn and trained by the rules of the stream of rollouts; groups go whole to learners, which "
            f"wait for the one with the longest; {_seconds(options)}"
        )
    return told


def _replaced(options: PlanOptions) -> str:
    if options.teaching is None or options.teaching == 1:
        return "no group is replaced (--teaching SHARE)"
    return f"{1 - options.teaching:.0%} of the groups teach nothing, as given"


def _seconds(options: PlanOptions) -> str:
    """How long grades and weights take."""
    grades = f"{GRADING if options.grading is None else options.grading:g} s"
    weights = f"at {SYNC / 1e9:g} GB a second" if options.sync is None else f"in {options.sync:g} s"
    return (
        f"graders take whole groups in the order in which they end; grades come {grades} after a group's last verdict "
        f"(--grading), new weights {weights} (--sync), while all engines wait"
    )
