"""`tulu rewardbench`: how good a reward model is, by RewardBench 1, RewardBench 2 or one's own pairs.

Nothing heavy is imported before a model is scored.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tulu.errors import RecipeError
from tulu.reward_models.bootstrap import bootstrap
from tulu.reward_models.report import Report, dumps, make_console, print_report
from tulu.reward_models.score_file import read_scores
from tulu.reward_models.sections import Data, summarize

Kind = Literal["auto", "classifier", "dpo", "judge"]
Reduction = Literal["sum", "avg", "norm"]
JudgeMode = Literal["pairwise", "ranking", "ratings"]


@dataclass(frozen=True)
class Options:
    """How an evaluation is made; every field is an option of `tulu rewardbench`."""

    kind: Kind = "auto"
    """auto: judge with an endpoint, dpo with a reference, else what the model's folder says."""
    reference: str | None = None
    """Reference model of a DPO policy."""
    reference_free: Reduction | None = None
    """Reward of a DPO policy without its reference: sum, average or negative norm of token log-probs."""
    template: str | None = None
    """tulu, olmo or tokenizer; None is the tokenizer's own, and an error where it has none."""
    max_length: int | None = None
    """Most tokens of prompt and answer; the prompt's start is cut, counted and named. None is the model's limit."""
    add_bos: bool = False
    """Put BOS before texts whose template writes none, as allenai/reward-bench does."""
    row_tokens: int = 8192
    """Most tokens of a packed row: what fits in memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 makes exact ties."""
    out: Path | None = None
    """Folder of the result; None is runs/rewardbench/MODEL/DATA."""
    seed: int = 1
    """Of the judge's order and of the bootstrap."""
    both_orders: bool = False
    """Judge every order of the answers and average."""
    judge_mode: JudgeMode | None = None
    """pairwise, ranking (four-way) or ratings; None is pairwise for pairs, ranking for lists."""
    judge_tokens: int | None = None
    """Most tokens of a judge's reply; None is 2048, for ratings 1024."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What runs a judge here: auto is vllm where it is installed."""
    endpoint: str | None = None
    """OpenAI-compatible base URL of a judge; None runs it here."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key, if it wants one."""
    ensemble: tuple[Path, ...] = ()
    """With --scores: further models' scores of the same items, to be combined with them."""
    limit: int | None = None
    """First items of every subset only."""
    compare: bool = False
    """Print the published figures beside the result."""
    json_output: bool = False
    """Print one JSON object and nothing else."""
    fresh: bool = False
    """Start over in a folder that already holds scores."""


def run(model: str | None, data: str, scores: Path | None, options: Options) -> Path | None:
    """Evaluate a model, or aggregate a file of scores; returns the folder of the result (None for a file of scores)."""
    if scores is not None:
        if model is not None:
            raise RecipeError(f"--scores aggregates scores made elsewhere; leave out the model {model!r}, or leave out --scores")
        aggregate(scores, data, options)
        return None
    if model is None:
        raise RecipeError("give a model (a folder or a hub name), or --scores FILE to aggregate scores made elsewhere")
    if options.ensemble:
        raise RecipeError("--ensemble combines scores files: give the first with --scores FILE, the others with --ensemble FILE")
    from tulu.reward_models.evaluation import evaluate

    return evaluate(model, data, options)


def aggregate(path: Path, data: str, options: Options) -> None:
    """Print the figures of a scores file."""
    kind = data_kind(data)
    given = {"--out": options.out is not None, "--limit": options.limit is not None, "--fresh": options.fresh}
    if idle := [name for name, is_given in given.items() if is_given]:
        raise RecipeError(
            f"{', '.join(idle)}: --scores reads the whole file and writes nothing; leave it out (--json > FILE keeps the figures)"
        )
    if options.compare and kind == "free":
        raise RecipeError("--compare: nothing is published for one's own data; use it with --data v1 or v2")
    if options.ensemble:
        from tulu.reward_models.ensemble_report import as_json, combine_files, print_ensemble

        found = combine_files([path, *options.ensemble], kind, options.seed)
        if options.json_output:
            print(dumps(as_json(found)))
        else:
            print_ensemble(found, make_console())
        return
    items = read_scores(path, kind)
    summary = summarize(items, kind)
    if options.json_output:
        print(dumps(summary.as_json()))
        return
    report = Report(str(path), summary, bootstrap(items, kind, options.seed))
    print_report(report, make_console(), options.compare)


def data_kind(data: str) -> Data:
    """v1, v2 or free; RecipeError for any other word beside --scores."""
    kinds: dict[str, Data] = {"v1": "v1", "v2": "v2", "free": "free"}
    if data not in kinds:
        raise RecipeError(f"--data {data}: with --scores it is v1, v2 or free (one's own subsets)")
    return kinds[data]
