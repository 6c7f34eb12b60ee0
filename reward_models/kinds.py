"""What kind of scorer the options of `tulu rewardbench` ask for, told before a model or torch is loaded."""

from tulu.config.locate import model_problem
from tulu.config.vllm_import import need_engine
from tulu.errors import RecipeError
from tulu.reward_models.options import Kind, RewardBenchOptions


def check_options(model: str, options: RewardBenchOptions) -> None:
    """Raise RecipeError where options contradict each other or name a model that is not there, EngineMissing without engine."""
    kind = kind_by_options(model, options)
    served = options.endpoint is not None
    for option, name in (("", None if served else model), ("--reference ", options.reference)):
        if name is not None and (problem := model_problem(name)):
            raise RecipeError(f"{option}{name}: {problem}")
    if kind == "judge" and not served:
        need_engine(options.engine)


def kind_by_options(model: str, options: RewardBenchOptions) -> Kind | None:
    """The kind that the options alone say; None where the model's configuration has to. Raises RecipeError."""
    for_dpo = options.reference is not None or options.reference_free is not None
    if options.reference is not None and options.reference_free is not None:
        raise RecipeError("--reference and --reference-free exclude each other; leave one out")
    kind: Kind | None = options.kind
    if kind == "auto":
        kind = "judge" if options.endpoint is not None else "dpo" if for_dpo else None
    if kind == "dpo" and not for_dpo:
        raise RecipeError(
            f"{model}: a DPO policy needs --reference MODEL (what it started from), or --reference-free sum, avg or norm"
        )
    if kind is not None and kind != "dpo" and for_dpo:
        raise RecipeError(f"--reference and --reference-free belong to --kind dpo, not {kind}")
    if kind is not None and kind != "judge" and options.endpoint is not None:
        raise RecipeError(f"--endpoint belongs to --kind judge, not {kind}")
    return kind
