"""What is kept of a step's rollouts: one row per completion for Parquet, and the figures of the step."""

from typing import TYPE_CHECKING, Any

from tulu.model.parallel import Parallel
from tulu.rollout.sampler import StepRollouts
from tulu.types import Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def record(rollouts: StepRollouts, tokenizer: "PreTrainedTokenizerBase") -> list[dict[str, Any]]:
    """Rows {id, prompt, completion, reward, score, status, detail, advantage, finish, tokens, versions, trained}.

    Where a reward model scored they also hold {reward_model}, its score as it gave it, and where long completions are
    penalised {penalty}, which is added to the reward. Status and detail are those of whatever failed.
    """
    trained = {id(rollout) for rollout in rollouts.trained}
    with_preference = any(grades.preference is not None for rollout in rollouts.sampled for grades in rollout.grades)
    rows = []
    for rollout in rollouts.sampled:
        prompt = tokenizer.decode(list(rollout.problem.prompt))
        for place, (completion, grades) in enumerate(zip(rollout.group.completions, rollout.grades, strict=True)):
            shown = grades.fault or grades.verdict or grades.preference
            row: dict[str, Any] = {
                "id": rollout.problem.id,
                "prompt": prompt,
                "completion": rollout.texts[place],
                "score": grades.verdict.score if grades.verdict else None,
                "status": shown.status if shown else "ok",
                "detail": shown.detail if shown else "",
                "reward": rollout.rewards[place],
                "advantage": rollout.advantages[place],
                "finish": completion.finish,
                "tokens": len(completion.tokens),
                "versions": [list(version) for version in completion.versions],
                "trained": id(rollout) in trained,
            }
            if with_preference:
                row["reward_model"] = grades.preference.score if grades.preference else None
            if rollout.penalties:
                row["penalty"] = rollout.penalties[place]
            rows.append(row)
    return rows


def summary(rollouts: StepRollouts, parallel: Parallel) -> dict[str, float]:
    """Figures over everything that all processes sampled in the step: reward, solved, truncated, masked, lengths.

    `solved` is the mean score of the verifiers, `reward_model` that of the reward model, and `penalty` what is added to the
    rewards of long completions; each is absent where there is none.
    """
    grades = [one for rollout in rollouts.sampled for one in rollout.grades]
    rewards = [reward for rollout in rollouts.sampled for reward in rollout.rewards if reward == reward]
    completions = [completion for rollout in rollouts.sampled for completion in rollout.group.completions]

    def mean(values: list[float]) -> float:
        count = parallel.total(len(values))
        return parallel.total(sum(values)) / count if count else float("nan")

    def scores(verdicts: list[Verdict | None]) -> list[float]:
        return [verdict.score for verdict in verdicts if verdict is not None and verdict.score is not None]

    means = {
        "solved": mean(scores([one.verdict for one in grades])),
        "reward_model": mean(scores([one.preference for one in grades])),
        "penalty": mean([penalty for rollout in rollouts.sampled for penalty in rollout.penalties]),
    }
    return {
        "reward": mean(rewards),
        **{name: value for name, value in means.items() if value == value},
        "masked": mean([float(one.fault is not None) for one in grades]),
        "truncated": mean([float(completion.finish == "length") for completion in completions]),
        "completion_tokens": mean([float(len(completion.tokens)) for completion in completions]),
        "groups": parallel.total(len(rollouts.trained)),
        "groups_sampled": parallel.total(len(rollouts.sampled)),
        "rounds": float(rollouts.rounds),
    }
