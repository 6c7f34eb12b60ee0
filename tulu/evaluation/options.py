"""The options of `tulu sample`, `tulu evaluate` and `tulu chat`, each declared once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tulu.config.options import BadGolds, EngineName, Option
from tulu.errors import RecipeError


@dataclass(frozen=True)
class SampleOptions:
    """How answers are sampled and which of them are kept."""

    data: Annotated[tuple[str, ...], Option("Rows with prompts; may be given again.")]
    n: Annotated[int, Option("Answers per prompt.", min=1)] = 8
    reward_model: Annotated[str | None, Option("Ranks the answers; under --verifier, the right ones.")] = None
    verifier: Annotated[str | None, Option("Keeps the answers that it scores above 0; own takes each row's.")] = None
    keep: Annotated[int, Option("Most rows per prompt.", min=1)] = 1
    pairs: Annotated[bool, Option("Also write best against worst, for dpo and rm.")] = False
    out: Annotated[Path | None, Option("Folder of the result; default: runs/sample/MODEL/DATA.")] = None
    max_tokens: Annotated[int | None, Option("Most tokens of an answer; default: 512, or half of fewer positions.", min=1)] = None
    temperature: Annotated[float, Option("Sampling temperature; 0 is greedy.", min=0)] = 1.0
    top_p: Annotated[float, Option("Share of the probability to sample from.", min=0.01, max=1)] = 1.0
    limit: Annotated[int | None, Option("First prompts only; a larger limit later continues.", min=1)] = None
    template: Annotated[str, Option("Chat template; tokenizer is the tokenizer's own.")] = "tokenizer"
    trust_remote_code: Annotated[bool, Option("Run code that a model brings along.", flag="--trust-remote-code")] = False
    engine: Annotated[EngineName, Option("What samples.")] = "auto"
    batch: Annotated[int, Option("Answers between two writes.", min=1)] = 256
    seed: Annotated[int, Option("Seed of sampling.")] = 1
    fresh: Annotated[bool, Option("Start over in a folder that already holds samples.")] = False


@dataclass(frozen=True)
class EvaluateOptions:
    """How a model, or the newest model of a recipe, is evaluated; None leaves the recipe's value or the default."""

    task: Annotated[
        tuple[str, ...],
        Option("gsm8k, math, sums, a task of a suite such as mbpp, or any name for rows of your own. May be given again."),
    ] = ()
    suite: Annotated[str | None, Option("tulu3-dev, tulu3-unseen, olmo2, code, or a YAML file with tasks of your own.")] = None
    skip: Annotated[tuple[str, ...], Option("Task of the suite that is not done; may be given again.")] = ()
    data: Annotated[
        tuple[str, ...],
        Option("Rows with messages and ground_truth; default: the task's own. With several tasks TASK=FILE, given again."),
    ] = ()
    verifier: Annotated[str | None, Option("Scores the answers; default: the task's own.")] = None
    env: Annotated[str | None, Option("Environment whose tools the answers may call, as in rlvr.env.")] = None
    bad_golds: Annotated[BadGolds | None, Option("What over 1 % of unusable ground truths do; default: stop.")] = None
    limit: Annotated[int | None, Option("First rows only.", min=1)] = None
    max_tokens: Annotated[int | None, Option("Most tokens of an answer; default: 512, or half of fewer positions.", min=1)] = None
    temperature: Annotated[
        float | None, Option("Sampling temperature; default: 0, which is greedy, and 1.0 with --best-of.", min=0)
    ] = None
    best_of: Annotated[int | None, Option("Answers per problem, of which --reward-model picks one.", min=2)] = None
    reward_model: Annotated[str | None, Option("Picks the best of --best-of answers.")] = None
    judge: Annotated[str | None, Option("Model that compares answers, for tasks of the suite that need one.")] = None
    judge_endpoint: Annotated[str | None, Option("OpenAI-compatible base URL of the judge; default: it runs here.")] = None
    engine: Annotated[EngineName | None, Option("What samples; default: the recipe's, or auto.")] = None
    template: Annotated[str | None, Option("Chat template; default: the recipe's, or the tokenizer's own.")] = None
    trust_remote_code: Annotated[bool, Option("Run code that a model brings along.", flag="--trust-remote-code")] = False
    out: Annotated[Path | None, Option("Folder of a model's result; default: runs/evaluate/MODEL/TASK.")] = None

    def overrides(self) -> list[str]:
        """The options that were given, as overrides of a recipe. Raises RecipeError for those that a recipe has no field for."""
        if len(self.task) > 1:
            raise RecipeError(
                f"--task {self.task[1]}: a recipe evaluates one task, and a suite beside it; write a suite of your own"
            )
        fields = {**self.recipe_fields(), "skip": self.skip, "judge": self.judge, "judge_endpoint": self.judge_endpoint}
        given = {name: value for name, value in fields.items() if value not in (None, ())}
        return [f"evaluate.{name}={json.dumps(value)}" for name, value in given.items()]

    def recipe_fields(self) -> dict[str, Any]:
        """The options that were given and that a recipe's evaluate section has fields for, by the names there."""
        fields = {
            "task": self.task[0] if self.task else None,
            "suite": self.suite,
            "data": (self.data[0] if len(self.data) == 1 else list(self.data)) if self.data else None,
            "verifier": self.verifier,
            "env": self.env,
            "bad_golds": self.bad_golds,
            "limit": self.limit,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "best_of": self.best_of,
            "reward_model": self.reward_model,
            "engine": self.engine,
        }
        return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class ChatOptions:
    """How a model answers."""

    system: Annotated[str | None, Option("System prompt.")] = None
    temperature: Annotated[float, Option("0 always takes the likeliest token.", min=0.0)] = 0.7
    top_p: Annotated[float, Option("Sample among the likeliest tokens with this much probability.", min=0.0, max=1.0)] = 1.0
    max_tokens: Annotated[int, Option("Most tokens of an answer.", min=1)] = 1024
    seed: Annotated[int | None, Option("Answer the same every time.", min=0)] = None
    template: Annotated[str, Option("Chat template by name; tokenizer takes the model's own.")] = "tokenizer"
    trust_remote_code: Annotated[bool, Option("Run code that the model brings along.", flag="--trust-remote-code")] = False
