"""The options of `tulu rewardbench`, each declared once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tulu.config.options import EngineName, Option

Kind = Literal["auto", "classifier", "dpo", "judge"]
Reduction = Literal["sum", "avg", "norm"]
JudgeMode = Literal["pairwise", "ranking", "ratings"]


@dataclass(frozen=True)
class RewardBenchOptions:
    """How an evaluation of a reward model is made."""

    kind: Annotated[
        Kind,
        Option("What the model is. auto: a judge with --endpoint, dpo with --reference, else what the model's folder says."),
    ] = "auto"
    reference: Annotated[str | None, Option("Reference model of a DPO policy.")] = None
    reference_free: Annotated[
        Reduction | None,
        Option("Reward of a DPO policy without its reference: sum, average or negative norm of its token log-probs."),
    ] = None
    template: Annotated[str | None, Option("Chat template: tulu, olmo or tokenizer; default: the tokenizer's own.")] = None
    trust_remote_code: Annotated[bool, Option("Run code that a model brings along.", flag="--trust-remote-code")] = False
    max_length: Annotated[
        int | None, Option("Most tokens of prompt and answer; the prompt's start is cut. Default: the model's limit.", min=1)
    ] = None
    add_bos: Annotated[
        bool,
        Option("Put BOS before texts whose template writes none, as allenai/reward-bench does.", flag="--add-bos/--no-add-bos"),
    ] = False
    row_tokens: Annotated[int, Option("Most tokens of a packed row: what fits in memory.", min=1)] = 8192
    precision: Annotated[Literal["fp32", "bf16"], Option("Arithmetic of the forward pass; bf16 makes exact ties.")] = "fp32"
    out: Annotated[Path | None, Option("Folder of the result; default: runs/rewardbench/MODEL/DATA.")] = None
    seed: Annotated[int, Option("Seed of the order in which a judge sees the answers, and of the bootstrap.")] = 1
    both_orders: Annotated[bool, Option("Let a judge see every order of the answers, and average.")] = False
    judge_mode: Annotated[
        JudgeMode | None,
        Option("What a judge is asked for; default: pairwise for pairs, ranking (four-way) for lists."),
    ] = None
    judge_tokens: Annotated[
        int | None, Option("Most tokens of a judge's reply; default: 2048, 1024 for ratings, or what fits.", min=1)
    ] = None
    engine: Annotated[
        EngineName,
        Option("What runs a judge without an endpoint; auto is vllm where it is installed."),
    ] = "auto"
    ensemble: Annotated[tuple[Path, ...], Option("Further scores files of the same items, to combine with --scores.")] = ()
    endpoint: Annotated[str | None, Option("OpenAI-compatible base URL of a judge; default: the judge runs here.")] = None
    api_key_env: Annotated[str, Option("Environment variable that holds the endpoint's key.")] = "OPENAI_API_KEY"
    limit: Annotated[int | None, Option("First items of every subset only.", min=1)] = None
    compare: Annotated[bool, Option("Print the published figures beside the result.")] = False
    json_output: Annotated[bool, Option("Print one JSON object and nothing else.", flag="--json")] = False
    fresh: Annotated[bool, Option("Start over in a folder that already holds scores.")] = False
