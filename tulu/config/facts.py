"""What is known of a stage before it runs: its model's size, its rows, their lengths and the steps that follow."""

from dataclasses import dataclass

from tulu.config.cards import CARDS, Card
from tulu.config.lengths import Lengths
from tulu.config.mixes import Mix, mix_of
from tulu.config.options import PlanOptions
from tulu.config.plan import optimizer_steps
from tulu.config.processes import world_size
from tulu.config.recipe_stages import model_named_by, stages_in
from tulu.config.schema import Recipe, Rlvr, TrainStage, drops_long
from tulu.config.sizes import Size, model_size, size_source
from tulu.config.stages import Stage
from tulu.config.verdicts import Grading, grading_of

MFU, EXPERTS_MFU = 0.4, 0.2
"""Shares of a GPU's peak that training is assumed to reach: of dense models, and of mixtures of experts."""
MEAN_SHARE = 4
"""Sequences of which nothing is known are assumed to have a quarter of the most tokens that they may have on average."""
GRADING = 0.1
"""Seconds that the grades of a group take beside its verdicts: until it is collected, and written to disk. An assumption."""
SYNC = 1e9
"""Bytes of weights that reach the engines in a second, through the memory of the host. An assumption."""


@dataclass(frozen=True)
class Facts:
    """What is known of a stage; None is not known."""

    section: TrainStage
    processes: int
    card: Card | None
    mfu: float
    mix: Mix
    rows: int | None
    """Rows of one epoch, those that are left out taken off."""
    steps: int | None
    size: Size | None
    size_from: str
    value: Size | None
    """The size of PPO's value model; None is as large as the policy."""
    teacher: Size | None
    """That of the model that RLVR distils from; None is as large as the policy."""
    lengths: Lengths
    """Of sequences; in RLVR of answers."""
    lengths_from: str
    prompt: float
    """Mean tokens of a prompt of RLVR."""
    teaching: float = 1.0
    """Share of RLVR's groups whose rewards differ."""
    grading_seconds: float = GRADING
    """What the grades of a group take beside its verdicts."""
    grading: Grading | None = None
    """How the answers of RLVR get their verdicts."""
    sync_seconds: float = 0.0
    """In which engines take new weights."""

    @property
    def unknown(self) -> tuple[str, ...]:
        """What has to be said for an estimate."""
        wanted = []
        if self.size is None:
            wanted.append(
                "the model's parameters (no config.json at hand, and no released model of that name): --parameters 7.3e9"
            )
        if self.steps is None:
            wanted.append(f"the rows of {', '.join(self.mix.unknown)}: --rows N")
        return tuple(wanted)


def facts_of(recipe: Recipe, stage: Stage, section: TrainStage, options: PlanOptions) -> Facts:
    """What is known of a stage with these options."""
    size, size_from = size_of(recipe, section, options)
    mix = mix_of(section.data, stage.rows)
    lengths, lengths_from = lengths_of(stage, section, mix, options)
    rows = options.rows if mix.rows is None else mix.rows
    if rows is not None and not isinstance(section, Rlvr):
        rows = round(rows * lengths.kept)
    return Facts(
        section=section,
        processes=options.processes or world_size(),
        card=CARDS[options.gpu] if options.gpu else None,
        mfu=options.mfu or (EXPERTS_MFU if size is not None and size.has_experts else MFU),
        mix=mix,
        rows=rows,
        steps=optimizer_steps(section, rows, lengths.tokens),
        size=size,
        size_from=size_from,
        value=value_size(section),
        teacher=teacher_size(section),
        lengths=lengths,
        lengths_from=lengths_from,
        prompt=prompt_of(section, mix),
        teaching=options.teaching or 1.0,
        grading_seconds=GRADING if options.grading is None else options.grading,
        grading=grading_of(section, options.grade_seconds) if isinstance(section, Rlvr) else None,
        sync_seconds=options.sync if options.sync is not None else 2.0 * (size.parameters if size else 0.0) / SYNC,
    )


def size_of(recipe: Recipe, section: TrainStage, options: PlanOptions) -> tuple[Size | None, str]:
    """The size of the model that a stage trains, and where it is from; None where it is not known offline.

    A stage that names no model continues with that of an earlier stage, which is as large as the recipe's.
    """
    if options.parameters is not None:
        return Size(options.parameters, options.parameters), "--parameters"
    start = model_named_by(section.start, stages_in(dict(recipe)))
    if start is None and recipe.base is not None:
        return model_size(None, recipe.base.config), "base.config"
    for name in [start] if start else [recipe.model, section.released]:
        size = model_size(name)
        if size is not None:
            return size, f"{name}: {size_source(name)}"
    return None, ""


def value_size(section: TrainStage) -> Size | None:
    """The size of PPO's value model where it begins as a model that is known."""
    value = section.value if isinstance(section, Rlvr) else None
    return None if value is None else model_size(value.path) or model_size(value.released)


def teacher_size(section: TrainStage) -> Size | None:
    """The size of the teacher of RLVR where it is a model that is known."""
    teacher = section.teacher if isinstance(section, Rlvr) else None
    return None if teacher is None else model_size(teacher.path)


def lengths_of(stage: Stage, section: TrainStage, mix: Mix, options: PlanOptions) -> tuple[Lengths, str]:
    """The lengths of a stage's sequences, in RLVR of its answers, and where they are from."""
    if isinstance(section, Rlvr):
        longest, leaves_out, known = section.max_tokens, False, None
    else:
        longest, leaves_out, known = section.max_length, drops_long(stage, section), mix.tokens
    if options.tokens is not None:
        return Lengths(options.tokens, longest, leaves_out), "--tokens"
    if known is not None:
        return Lengths(known, longest, leaves_out), "of the data"
    return Lengths(max(1.0, longest / MEAN_SHARE), longest, leaves_out), "assumed, give --tokens N"


def prompt_of(section: TrainStage, mix: Mix) -> float:
    """Mean tokens of a prompt of RLVR, of which longer ones are left out; 0 for other stages."""
    if not isinstance(section, Rlvr):
        return 0.0
    mean = mix.tokens if mix.tokens is not None else max(1.0, section.max_prompt / MEAN_SHARE)
    return Lengths(mean, section.max_prompt, True).tokens
