"""Options of `tulu sample`, `tulu evaluate` and `tulu chat` that cannot be followed, told before torch is imported."""

from pathlib import Path

from tulu.config.locate import policy_problem, reward_model_problem, source_problem
from tulu.config.processes import world_size
from tulu.config.suite_tasks import suite_tasks
from tulu.config.tasks import TASKS
from tulu.config.templates import template_problem
from tulu.errors import RecipeError, nearest
from tulu.evaluation.options import ChatOptions, EvaluateOptions, SampleOptions
from tulu.verifiers.registry import check_name
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

OWN = "own"
"""The value of --verifier of `tulu sample` that takes the verifiers of each row."""


def check_sample(model: str, options: SampleOptions) -> None:
    """Raise RecipeError where options contradict each other, or name something that is not there."""
    if problem := policy_problem(model):
        raise RecipeError(f"{model}: {problem}")
    if options.reward_model is None and options.verifier is None:
        raise RecipeError(
            "nothing tells good answers from bad ones; give --reward-model RM, --verifier NAME (own: each row's), or both"
        )
    if options.reward_model is not None and (problem := reward_model_problem(options.reward_model)):
        raise RecipeError(f"--reward-model {options.reward_model}: {problem}")
    scored_by_model = options.verifier == REWARD_MODEL and options.reward_model is not None
    if options.verifier is not None and options.verifier != OWN and not scored_by_model:
        check_name(options.verifier)
    if options.n > 1 and options.temperature == 0:
        raise RecipeError(f"--temperature 0: all {options.n} answers would be the same; raise it, or use --n 1")
    if options.pairs and options.n == 1:
        raise RecipeError("--pairs: one answer makes no pair; raise --n")
    _check_data(options.data)
    check_template(options.template)
    if world_size() > 1:
        raise RecipeError("tulu sample runs in one process; start it without torchrun")


def check_evaluate(model: str, options: EvaluateOptions) -> None:
    """Raise RecipeError where options contradict each other or name something that is not there."""
    best_of, reward_model = options.best_of, options.reward_model
    if problem := policy_problem(model):
        raise RecipeError(f"{model}: {problem}")
    if not options.data and options.task[0] not in TASKS:
        raise RecipeError(
            f"--task {options.task[0]}: has no data of its own{nearest(options.task[0], suite_tasks())}; known are "
            f"{', '.join(TASKS)}, or give --data FILE; docs/evaluation.md lists the tasks of suites, which --task takes too"
        )
    _check_data(options.data)
    check_template(options.template)
    if (best_of is None) != (reward_model is None):
        lacking, given = ("--reward-model RM", "--best-of") if reward_model is None else ("--best-of N", "--reward-model")
        raise RecipeError(f"{given} needs {lacking}: the reward model picks one of N answers")
    if best_of is not None and options.temperature == 0:
        raise RecipeError(f"--temperature 0: all {best_of} answers would be the same; leave it out (1.0), or raise it")
    if options.verifier is not None and options.verifier.lower() == REWARD_MODEL:
        raise RecipeError("--verifier reward_model: it cannot say which answers are right; use --best-of N --reward-model RM")
    if options.verifier is not None:
        check_name(options.verifier)
    if reward_model is not None and (problem := reward_model_problem(reward_model)):
        raise RecipeError(f"--reward-model {reward_model}: {problem}")


def _check_data(names: tuple[str, ...]) -> None:
    for name in names:
        if problem := source_problem(name):
            raise RecipeError(f"--data {name}: {problem}")


def check_chat(model: str, options: ChatOptions) -> None:
    """Raise RecipeError where the model cannot answer, or there is no such template. A folder may also hold adapters alone."""
    if not (Path(model) / "adapter_config.json").is_file() and (problem := policy_problem(model)):
        raise RecipeError(f"{model}: {problem}")
    check_template(options.template)


def check_template(name: str | None) -> None:
    """Raise RecipeError where there is no such chat template; None is the recipe's or the tokenizer's own."""
    if name is not None and (problem := template_problem(name)):
        raise RecipeError(f"--template {name}: {problem}")
