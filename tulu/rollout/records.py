"""What is kept of a step's rollouts: one row a completion for Parquet, and the step's figures."""

from typing import TYPE_CHECKING, Any

from tulu.model.parallel import Parallel
from tulu.rollout.sampler import Collected
from tulu.types import Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def record(rollouts: Collected, tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """Rows {id, prompt, completion, reward, score, status, detail, advantage, finish, tokens, versions, trained}.

    Where a reward model was asked, also {reward_model}: its score as it gave it. Status and detail are those of what failed.
    """
    kept = {id(rollout) for rollout in rollouts.kept}
    asked = any(preference is not None for rollout in rollouts.seen for preference in rollout.preferences)
    rows = []
    for rollout in rollouts.seen:
        for place, (completion, said) in enumerate(zip(rollout.group.completions, rollout.said, strict=True)):
            verdict, preference = said.verdict, said.preference
            shown = said.fault or verdict or preference
            row = {
                "id": rollout.problem.id,
                "prompt": tokenizer.decode(list(rollout.problem.prompt)),
                "completion": rollout.texts[place],
                "score": verdict.score if verdict else None,
                "status": shown.status if shown else "ok",
                "detail": shown.detail if shown else "",
                "reward": rollout.rewards[place],
                "advantage": rollout.advantages[place],
                "finish": completion.finish,
                "tokens": len(completion.tokens),
                "versions": [list(version) for version in completion.versions],
                "trained": id(rollout) in kept,
            }
            rows.append({**row, "reward_model": preference.score if preference else None} if asked else row)
    return rows


def summary(rollouts: Collected, parallel: Parallel) -> dict[str, float]:
    """Figures over everything sampled in the step, by all processes: reward, solved, truncated, masked, lengths.

    `solved` is the verifiers' alone and `reward_model` the mean of its own scores; either is absent where it was not asked.
    """
    said = [each for rollout in rollouts.seen for each in rollout.said]
    rewards = [reward for rollout in rollouts.seen for reward in rollout.rewards if reward == reward]
    completions = [completion for rollout in rollouts.seen for completion in rollout.group.completions]

    def mean(values: list[float]) -> float:
        count = parallel.total(len(values))
        return parallel.total(sum(values)) / count if count else float("nan")

    def scores(verdicts: list[Verdict | None]) -> list[float]:
        return [verdict.score for verdict in verdicts if verdict is not None and verdict.score is not None]

    asked = {
        "solved": mean(scores([each.verdict for each in said])),
        "reward_model": mean(scores([each.preference for each in said])),
    }
    return {
        "reward": mean(rewards),
        **{name: value for name, value in asked.items() if value == value},
        "masked": mean([float(each.fault is not None) for each in said]),
        "truncated": mean([float(completion.finish == "length") for completion in completions]),
        "completion_tokens": mean([float(len(completion.tokens)) for completion in completions]),
        "groups": parallel.total(len(rollouts.kept)),
        "groups_sampled": parallel.total(len(rollouts.seen)),
        "rounds": float(rollouts.rounds),
    }
