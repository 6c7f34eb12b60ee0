"""The options of `tulu rewardbench`. Nothing heavy is imported here, so that the command line can be made from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["auto", "classifier", "dpo", "judge"]
Reduction = Literal["sum", "avg", "norm"]
JudgeMode = Literal["pairwise", "ranking", "ratings"]


@dataclass(frozen=True)
class RewardBenchOptions:
    """How an evaluation is made; every field is an option of `tulu rewardbench`."""

    kind: Kind = "auto"
    """What the model is; auto is a judge with an endpoint, a DPO policy with a reference, else what the model's folder says."""
    reference: str | None = None
    """The reference model of a DPO policy."""
    reference_free: Reduction | None = None
    """The reward of a DPO policy without its reference: sum, average or negative norm of token log-probs."""
    template: str | None = None
    """The chat template: tulu, olmo or tokenizer; None is the tokenizer's own, and an error where it has none."""
    max_length: int | None = None
    """Most tokens of prompt and answer; the prompt's start is cut, counted and named. None is the model's limit."""
    add_bos: bool = False
    """Whether BOS is put before texts whose template writes none, as allenai/reward-bench does."""
    row_tokens: int = 8192
    """Most tokens of a packed row, which bounds the memory of a forward pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward pass; bf16 makes exact ties."""
    out: Path | None = None
    """Folder of the result; None is runs/rewardbench/MODEL/DATA."""
    seed: int = 1
    """Seed of the order in which a judge sees the answers, and of the bootstrap."""
    both_orders: bool = False
    """Whether a judge sees every order of the answers, and its verdicts are averaged."""
    judge_mode: JudgeMode | None = None
    """How a judge compares: pairwise, ranking (four-way) or ratings; None is pairwise for pairs, ranking for lists."""
    judge_tokens: int | None = None
    """Most tokens of a judge's reply; None is 2048, for ratings 1024."""
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """What runs a judge on this machine; auto is vllm where it is installed."""
    endpoint: str | None = None
    """OpenAI-compatible base URL of a judge; None runs the judge on this machine."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the endpoint's key, if the endpoint needs one."""
    ensemble: tuple[Path, ...] = ()
    """With --scores: further models' scores of the same items, to be combined with them."""
    limit: int | None = None
    """First items of every subset only."""
    compare: bool = False
    """Whether the published figures are printed beside the result."""
    json_output: bool = False
    """Whether one JSON object is printed and nothing else."""
    fresh: bool = False
    """Whether to start over in a folder that already holds scores."""
