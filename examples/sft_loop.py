"""Supervised fine-tuning as one flat loop over the public pieces of the framework.

    python examples/sft_loop.py MODEL rows.jsonl --out trained

Rows hold `messages`, or any other form that docs/recipes.md lists. The stage in tulu/stages/sft.py is this loop with a
recipe, resuming, several processes, a cache of tokens and the released normalisations.
"""

from pathlib import Path

import typer

from tulu.config.schema import Sft
from tulu.data.datasets import load_groups
from tulu.losses import Loss, sft_loss
from tulu.model.batch import Batch, pack
from tulu.model.parallel import Parallel
from tulu.model.policy import Policy
from tulu.train.fit import draw
from tulu.train.optimizer import Learner, learning_rate, total_steps
from tulu.train.step import count_tokens, step


def main(model: str, rows: str, out: Path = Path("trained"), epochs: float = 1.0, rate: float = 5e-6) -> None:
    """Train the model on the rows, with a peak learning rate of `rate`, and save it."""
    section = {"data": rows, "batch": 8, "max_length": 1024, "epochs": epochs, "learning_rate": rate, "warmup": 0.03}
    stage = Sft.model_validate({**section, "precision": "fp32"})
    policy = Policy.load(model)
    groups = load_groups("sft", stage.data, policy.tokenizer, stage.max_length)
    groups.report.show()
    learner = Learner(policy, stage, Parallel(stage))

    def objective(batch: Batch) -> Loss:
        return sft_loss(policy.logps(batch))

    total = total_steps(stage, len(groups))
    for index in range(total):
        learner.set_learning_rate(learning_rate(stage, index, total))
        # Conversations are packed into rows of at most 4,096 tokens; how they are packed changes no gradient.
        batches = pack([groups[row] for row in draw(len(groups), stage, index)], row_tokens=4096)
        metrics = step(learner, batches, objective, count_tokens)
        print(f"step {index + 1}/{total}  loss {metrics['loss']:.3f}  gradient norm {metrics['gradient_norm']:.3f}")
    policy.save(out)


if __name__ == "__main__":
    typer.run(main)
