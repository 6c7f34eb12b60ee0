"""What is kept of a step's rollouts: one row per completion for Parquet, and the figures of the step."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu.files import write_atomic
from tulu.rollout.fleet import EngineState
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.rollout.token_notes import TokenNote, columns
from tulu.types import Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer.json"
"""The file beside the rollouts that tells their tokens apart."""


def keep_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the tokenizer beside the rollouts, so that who reads them can tell their tokens apart without the model."""
    # One that is no tokenizer of the library has no such file; readers then show whole texts.
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        folder.mkdir(exist_ok=True)
        write_atomic(folder / TOKENIZER, backend.to_str())


def record(
    rollouts: StepRollouts, tokenizer: "PreTrainedTokenizerBase", notes: Mapping[int, TokenNote] = MappingProxyType({})
) -> list[dict[str, Any]]:
    """Rows {group, id, verifier, prompt, completion, reward, score, status, detail, advantage, finish, tokens, versions, …}.

    Where a reward model scored they also hold {reward_model}, its score as it gave it, and where long completions are
    penalised {penalty}, which is added to the reward. Status and detail are those of whatever failed; {trained} says whether
    the group was trained on, {engine} who sampled it. Of the tokens there are
    {token_ids}, {token_trained} where some are not, such as those of tools, and the notes that the learner made
    ({token_mismatch}, {token_advantage}), null for the completions that this process did not train on.
    """
    trained = {id(rollout) for rollout in rollouts.trained}
    completions = [completion for rollout in rollouts.sampled for completion in rollout.group.completions]
    with_read = not all(all(completion.trained) for completion in completions)
    with_preference = any(grades.preference is not None for rollout in rollouts.sampled for grades in rollout.grades)
    rows = []
    for group, rollout in enumerate(rollouts.sampled):
        prompt = tokenizer.decode(list(rollout.problem.prompt))
        for place, (completion, grades) in enumerate(zip(rollout.group.completions, rollout.grades, strict=True)):
            shown = grades.fault or grades.verdict or grades.preference
            row: dict[str, Any] = {
                "group": group,
                "id": rollout.problem.id,
                "verifier": "+".join(rollout.problem.verifiers),
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
                "engine": "+".join(dict.fromkeys(engine for _, engine in completion.engines)),
                "trained": id(rollout) in trained,
                "token_ids": np.asarray(completion.tokens, dtype=np.int32),
                **columns(completion, notes),
            }
            if with_read:
                row["token_trained"] = np.asarray(completion.trained, dtype=bool)
            if with_preference:
                row["reward_model"] = grades.preference.score if grades.preference else None
            if rollout.penalties:
                row["penalty"] = rollout.penalties[place]
            rows.append(row)
    return rows


def summary(rollouts: StepRollouts) -> dict[str, float]:
    """Figures over everything that was sampled for a step: reward, solved, truncated, masked, lengths.

    `solved` is the mean score of the verifiers, `reward_model` that of the reward model, and `penalty` what is added to the
    rewards of long completions; each is absent where there is none. So are `solved/NAME`, `reward/NAME` and `faults/NAME`, by
    verifier, where there are several, and `pass@K`. `faults` is the share of completions that a grader failed on; `masked` has
    besides them those that no engine ended.
    """
    grades = [one for rollout in rollouts.sampled for one in rollout.grades]
    rewards = [reward for rollout in rollouts.sampled for reward in rollout.rewards if reward == reward]
    completions = [completion for rollout in rollouts.sampled for completion in rollout.group.completions]

    means = {
        "solved": _mean(_scores([one.verdict for one in grades])),
        "reward_model": _mean(_scores([one.preference for one in grades])),
        "penalty": _mean([penalty for rollout in rollouts.sampled for penalty in rollout.penalties]),
        "faults": _mean(_faults(rollouts.sampled)),
        **_by_verifier(rollouts.sampled),
        **pass_at(rollouts.sampled),
    }
    lengths = sorted(len(completion.tokens) for completion in completions) or [0]
    return {
        "reward": _mean(rewards),
        **{name: value for name, value in means.items() if value == value},
        "masked": _mean([float(one.fault is not None) for one in grades]),
        "truncated": _mean([float(completion.finish == "length") for completion in completions]),
        "completion_tokens": _mean([float(length) for length in lengths]),
        "completion_tokens_median": float(lengths[len(lengths) // 2]),
        "completion_tokens_max": float(lengths[-1]),
        "groups": float(len(rollouts.trained)),
        "groups_sampled": float(len(rollouts.sampled)),
        "rounds": float(rollouts.rounds),
    }


def _by_verifier(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Score, reward and faults of each verifier's rows, or of rows that name the same ones; nothing where all rows do."""
    groups: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault("+".join(rollout.problem.verifiers), []).append(rollout)
    found: dict[str, float] = {}
    for name in sorted(groups) if len(groups) > 1 else ():
        found[f"solved/{name}"] = _mean([score for one in groups[name] for score in _verifier_scores(one)])
        found[f"reward/{name}"] = _mean([reward for one in groups[name] for reward in one.rewards if reward == reward])
        found[f"faults/{name}"] = _mean(_faults(groups[name]))
    return found


def _faults(rollouts: Sequence[Rollout]) -> list[float]:
    """For each completion that was graded whether a verifier or the reward model failed; one that no engine ended was not."""
    ends = [(end, one) for rollout in rollouts for end, one in zip(rollout.group.completions, rollout.grades, strict=True)]
    return [float(one.fault is not None) for end, one in ends if end.finish != "data"]


def pass_at(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """pass@K for K = 2, 4, 8 ...: the chance that one of K completions is right, over groups with at least K that were graded.

    Of n completions c are right; 1 - C(n-c, K) / C(n, K) estimates it without bias (Chen et al. 2021, arXiv 2107.03374). Right is
    a score of 1 or more.
    """
    counts = [(len(scores), sum(score >= 1 for score in scores)) for scores in map(_verifier_scores, rollouts)]
    found: dict[str, float] = {}
    k = 2
    while chances := [1 - math.comb(n - right, k) / math.comb(n, k) for n, right in counts if n >= k]:
        found[f"pass@{k}"] = _mean(chances)
        k *= 2
    return found


def staleness(rollouts: StepRollouts, step: int, most: int) -> dict[str, float]:
    """How many steps lie between the weights that trained tokens were sampled with and those that step `step` starts from.

    `staleness` is the mean over tokens, `staleness_max` the largest; `staleness/N` is the share of tokens with N, where there may
    be more than 0.
    """
    tokens = Counter[int]()
    for rollout in rollouts.trained:
        for completion in rollout.group.completions:
            # A completion that no engine began has no span.
            ends = [first for first, _ in completion.versions[1:]] + [len(completion.tokens)]
            for (first, version), end in zip(completion.versions, ends, strict=False):
                tokens[step - 1 - version] += end - first
    total = tokens.total()
    if not total:
        return {}
    mean = sum(lag * count for lag, count in tokens.items()) / total
    shares = {f"staleness/{lag}": tokens[lag] / total for lag in range(most + 1)} if most else {}
    return {"staleness": mean, "staleness_max": float(max(tokens)), **shares}


class EngineFigures:
    """What engines did since they were asked about last."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._busy: dict[str, float] = {}
        self._tokens: dict[str, int] = {}

    def read(self, engines: Sequence[EngineState]) -> dict[str, float]:
        """`engines_idle`, the share of time in which they had nothing to do, and `engines_tokens_per_second`, of all together.

        Of several engines both are also given of each, as engine/NAME/idle and engine/NAME/tokens_per_second.
        """
        before, self._asked = self._asked, time.monotonic()
        passed = self._asked - before
        idle: dict[str, float] = {}
        speed: dict[str, float] = {}
        for one in engines:
            busy = one.busy_seconds - self._busy.get(one.name, 0.0)
            # An engine that was started again counts from 0.
            tokens = one.tokens - min(one.tokens, self._tokens.get(one.name, 0))
            idle[one.name] = min(1.0, max(0.0, 1.0 - busy / passed)) if passed else 0.0
            speed[one.name] = tokens / passed if passed else 0.0
        self._busy = {one.name: one.busy_seconds for one in engines}
        self._tokens = {one.name: one.tokens for one in engines}
        each = {f"engine/{name}/idle": share for name, share in idle.items()}
        each |= {f"engine/{name}/tokens_per_second": tokens for name, tokens in speed.items()}
        together = {"engines_idle": _mean([*idle.values()]) if idle else 0.0, "engines_tokens_per_second": sum(speed.values())}
        return {**together, **(each if len(idle) > 1 else {})}


def _verifier_scores(rollout: Rollout) -> list[float]:
    return _scores([one.verdict for one in rollout.grades])


def _scores(verdicts: Sequence[Verdict | None]) -> list[float]:
    return [verdict.score for verdict in verdicts if verdict is not None and verdict.score is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
