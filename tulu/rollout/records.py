"""What is kept of a step's rollouts: one row per completion for Parquet, and the figures of the step."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tulu.files import write_atomic
from tulu.grading.reward import ENVIRONMENT, by_grader, commonest, fault_of
from tulu.rollout.fleet import EngineState, SyncReport
from tulu.rollout.sampler import Rollout, StepRollouts
from tulu.rollout.token_notes import TokenNote, columns
from tulu.types import Verdict
from tulu.verifiers.custom import is_custom
from tulu.verifiers.reward_model import NAME as REWARD_MODEL

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MANY_MASKED = 0.1
"""Share of a step's completions that may be masked until a user is told."""
TOKENIZER = "tokenizer.json"
"""The file beside the rollouts that tells their tokens apart."""


def keep_tokenizer(folder: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the tokenizer beside the rollouts, so that who reads them can tell their tokens apart without the model."""
    # One that is no tokenizer of the library has no such file; readers then show whole texts.
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        folder.mkdir(exist_ok=True)
        write_atomic(folder / TOKENIZER, backend.to_str())


def record(
    rollouts: StepRollouts,
    tokenizer: "PreTrainedTokenizerBase",
    notes: Mapping[int, TokenNote] = MappingProxyType({}),
    compares_later: bool = False,
) -> list[dict[str, Any]]:
    """Rows {group, id, verifier, prompt, completion, reward, score, status, detail, advantage, finish, tokens, versions, …}.

    Where a reward model scored they also hold {reward_model}, its score as it gave it, and where long completions are
    penalised {penalty}, which is added to the reward. Status and detail are those of whatever failed; {trained} says whether
    the group was trained on, {engine} who sampled it. Of the tokens there are
    {token_ids}, {token_trained} where some are not, such as those of tools, and the notes that the learner made
    ({token_mismatch}, {token_advantage}), null for the completions that this process did not train on. Where the learner
    `compares_later`, as with a value model or the KL in the rewards, {advantage} is the mean of these, NaN where there are none.
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
                "verifier": "+".join(_graders(rollout)),
                "prompt": prompt,
                "completion": rollout.texts[place],
                "score": grades.verdict.score if grades.verdict else None,
                "status": shown.status if shown else "ok",
                "detail": shown.detail if shown else "",
                "reward": rollout.rewards[place],
                "advantage": mean_advantage(notes.get(id(completion))) if compares_later else rollout.advantages[place],
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


def mean_advantage(note: TokenNote | None) -> float:
    """The mean over the trained tokens of a completion; NaN where nothing was noted of it."""
    known = [] if note is None or note.advantage is None else note.advantage[~np.isnan(note.advantage)].tolist()
    return _mean(known)


def summary(rollouts: StepRollouts) -> dict[str, float]:
    """Figures over everything that was sampled for a step: reward, solved, truncated, masked, lengths.

    `solved` is the mean score of the verifiers, `reward_model` that of the reward model, and `penalty` what is added to the
    rewards of long completions; each is absent where there is none. So is `pass@K`. `solved/NAME`, `reward/NAME` and
    `faults/NAME` are those of each verifier: its own mean score, the mean reward of the completions that it grades, and the share
    of them that it failed on. `faults` is the share that any grader failed on; `masked` has besides them those that no engine
    ended.
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
    lengths = [len(completion.tokens) for completion in completions] or [0]
    return {
        "reward": _mean(rewards),
        **{name: value for name, value in means.items() if value == value},
        "masked": _mean([float(one.fault is not None) for one in grades]),
        "truncated": _mean([float(completion.finish == "length") for completion in completions]),
        "completion_tokens": _mean([float(length) for length in lengths]),
        "completion_tokens_median": float(median(lengths)),
        "completion_tokens_max": float(max(lengths)),
        "groups": float(len(rollouts.trained)),
        "groups_sampled": float(len(rollouts.sampled)),
        "rounds": float(rollouts.rounds),
    }


def _by_verifier(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Score, reward and faults of each verifier, of those too that grade a row together with others."""
    values: dict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for end, grades, reward in zip(rollout.group.completions, rollout.grades, rollout.rewards, strict=True):
            said = [(_in_figures(name), verdict) for name, verdict in by_grader(rollout.problem, end, grades)]
            for name, verdict in said:
                values[f"faults/{name}"].append(float(verdict.score is None))
                # What a reward model says is no share that was solved, and stands under its own name.
                if verdict.score is not None and name != REWARD_MODEL:
                    values[f"solved/{name}"].append(verdict.score)
            for name in {name for name, _ in said} if reward == reward else ():
                values[f"reward/{name}"].append(reward)
    return {name: _mean(values[name]) for name in sorted(values)}


def _in_figures(name: str) -> str:
    """A verifier's name as part of a figure's: one of the user is a path, and a figure of a tracker is none."""
    return name.lstrip("./").replace("/", ".") if is_custom(name) else name.lower()


def _graders(rollout: Rollout) -> Sequence[str]:
    """Who grades a rollout; rows that an environment scores name no verifier that would."""
    names = rollout.problem.verifiers
    played = any(completion.verdict is not None for completion in rollout.group.completions)
    return (ENVIRONMENT,) if played and tuple(names) == (REWARD_MODEL,) else names


def _faults(rollouts: Sequence[Rollout]) -> list[float]:
    """For each completion that was graded whether a grader failed; one that no engine ended was not graded."""
    ends = [(end, one) for rollout in rollouts for end, one in zip(rollout.group.completions, rollout.grades, strict=True)]
    return [float(one.fault is not None) for end, one in ends if end.finish != "data" or end.verdict is not None]


def masked_warning(rollouts: StepRollouts, share: float, environment: str = "") -> str | None:
    """What a user is told where many completions of a step are masked: the share, who failed most and why; else None."""
    if not share > MANY_MASKED:
        return None
    latest = [
        fault_of(rollout.problem, end, grades, environment)
        for rollout in rollouts.sampled
        for end, grades in zip(rollout.group.completions, rollout.grades, strict=True)
    ]
    told, cure = commonest(latest)
    return f"{share:.0%} of a step's completions are masked, which enter no loss and no mean: {told}. {cure}."


def sync_figures(waited: float, report: SyncReport, seconds: float) -> dict[str, float]:
    """`sync_seconds`, which the learner waited for engines to take its weights, and `share_weight_sync` of the step's `seconds`.

    Where the fleet timed the parts of it, they stand there as `sync/PART`; they overlap.
    """
    parts = {f"sync/{name}": spent for name, spent in report.parts.items()}
    return {"sync_seconds": waited, "share_weight_sync": waited / seconds, **parts}


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
