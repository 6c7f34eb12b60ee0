"""GRPO as one flat loop over the public pieces of the framework.

    python examples/grpo_loop.py MODEL rows.jsonl --verifier gsm8k --out trained

Rows hold `messages` and `ground_truth`. The stage in tulu/stages/rlvr.py is this loop with a recipe, resuming, several
processes, clipping over several updates, a KL term, a reward model and refilling of groups that teach nothing.
"""

from dataclasses import dataclass
from math import nan
from pathlib import Path

import torch
import typer
from torch import Tensor

from tulu.advantages import group_advantages
from tulu.config.schema import Rlvr
from tulu.data.problems import load_problems
from tulu.grading.grader import Grader
from tulu.losses import Loss, grpo_loss
from tulu.model.batch import Batch, pack
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.rollout.engine import EngineSpec
from tulu.rollout.transformers_engine import TransformersEngine
from tulu.train.optimizer import Learner
from tulu.train.step import count_tokens, step
from tulu.types import SamplingParams

PROMPTS, SAMPLES, MAX_PROMPT, MAX_TOKENS = 8, 4, 256, 64


@dataclass(frozen=True, kw_only=True)
class AdvantageBatch(Batch):
    """A row of sampled completions, each with its advantage over its group."""

    advantage_C: Tensor


def main(
    model: str, rows: str, verifier: str = "gsm8k", out: Path = Path("trained"), steps: int = 20, learning_rate: float = 1e-6
) -> None:
    """Train the model on the rows and save it."""
    section = {"data": rows, "batch": PROMPTS * SAMPLES, "prompts": PROMPTS, "samples": SAMPLES, "max_prompt": MAX_PROMPT}
    sizes = {"max_tokens": MAX_TOKENS, "max_length": MAX_PROMPT + MAX_TOKENS, "steps": steps, "precision": "fp32"}
    stage = Rlvr.model_validate({**section, **sizes, "learning_rate": learning_rate})
    policy = Policy.load(model)
    problems = load_problems(stage.data, policy.tokenizer, MAX_PROMPT, verifier)
    engine = TransformersEngine(policy.model, policy.tokenizer, EngineSpec(model, stage.max_length, version=0))
    learner = Learner(policy, stage, Parallel(stage))

    def objective(batch: AdvantageBatch) -> Loss:
        logps_N = policy.logps(batch)
        # A single update on each rollout: the policy that sampled is the one that is trained, so the ratio is 1.
        return grpo_loss(logps_N, logps_N.detach(), batch.advantage_C[batch.owner_N])

    with Grader() as grader:
        for index in range(steps):
            drawn = [problems[(index * PROMPTS + place) % len(problems)] for place in range(PROMPTS)]
            groups = engine.generate(drawn, SAMPLES, SamplingParams(MAX_TOKENS, seed=index))
            answers = [list(completion.tokens) for group in groups for completion in group.completions]
            texts = policy.tokenizer.batch_decode(answers, skip_special_tokens=True)
            verdicts = grader.grade([(text, drawn[place // SAMPLES]) for place, text in enumerate(texts)])
            rewards_PG = torch.tensor([nan if v.score is None else v.score for v in verdicts]).view(PROMPTS, SAMPLES)
            # A completion that could not be graded has no advantage and adds nothing to the loss.
            advantages = [group_advantages(rewards_G, "centred").nan_to_num().tolist() for rewards_G in rewards_PG]
            batches = [AdvantageBatch(**vars(row), advantage_C=row.of_completions(advantages)) for row in pack(groups, 4096)]
            metrics = step(learner, batches, objective, count_tokens)
            engine.sync(policy.weights(), index + 1)
            print(f"step {index + 1}  score {rewards_PG.nanmean():.3f}  gradient norm {metrics['gradient_norm']:.3f}")
    policy.save(out)


if __name__ == "__main__":
    typer.run(main)
