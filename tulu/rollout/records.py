"""What is kept of a step's rollouts: one row a completion for Parquet, and the step's figures."""

from typing import TYPE_CHECKING, Any

from tulu.parallel import Parallel
from tulu.rollout.stream import Collected

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def record(rollouts: Collected, tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """Rows {id, prompt, completion, reward, score, status, detail, advantage, finish, tokens, versions, trained}."""
    kept = {id(rollout) for rollout in rollouts.kept}
    return [
        {
            "id": rollout.problem.id,
            "prompt": tokenizer.decode(list(rollout.problem.prompt)),
            "completion": text,
            "score": verdict.score,
            "status": verdict.status,
            "detail": verdict.detail,
            "reward": reward,
            "advantage": advantage,
            "finish": completion.finish,
            "tokens": len(completion.tokens),
            "versions": [list(version) for version in completion.versions],
            "trained": id(rollout) in kept,
        }
        for rollout in rollouts.seen
        for text, verdict, reward, advantage, completion in zip(
            rollout.texts, rollout.verdicts, rollout.rewards, rollout.advantages, rollout.group.completions, strict=True
        )
    ]


def summary(rollouts: Collected, parallel: Parallel) -> dict[str, float]:
    """Figures over everything sampled in the step, by all processes: reward, solved, truncated, masked, lengths."""
    verdicts = [verdict for rollout in rollouts.seen for verdict in rollout.verdicts]
    rewards = [reward for rollout in rollouts.seen for reward in rollout.rewards if reward == reward]
    completions = [completion for rollout in rollouts.seen for completion in rollout.group.completions]

    def mean(values: list[float]) -> float:
        count = parallel.total(len(values))
        return parallel.total(sum(values)) / count if count else float("nan")

    return {
        "reward": mean(rewards),
        "solved": mean([verdict.score for verdict in verdicts if verdict.score is not None]),
        "masked": mean([float(verdict.score is None) for verdict in verdicts]),
        "truncated": mean([float(completion.finish == "length") for completion in completions]),
        "completion_tokens": mean([float(len(completion.tokens)) for completion in completions]),
        "groups": parallel.total(len(rollouts.kept)),
        "groups_sampled": parallel.total(len(rollouts.seen)),
        "rounds": float(rollouts.rounds),
    }
